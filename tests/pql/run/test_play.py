"""play.py, evaluate.py and what they stand on, tried on a small real run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tasks
from pql import config
from pql.roles.learner import seed_of
from pql.run import evaluation, trainer
from pql.run.video import reason

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
ROOT = Path(__file__).resolve().parents[3]


def script(name):
    """`main` of scripts/<name>.py."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Cartpole for 1600 env steps, with two checkpoints."""
    path = tmp_path_factory.mktemp("run") / "cartpole"
    trainer.train(
        config.load(
            [
                "task=Cartpole", "runtime=sync", "num_envs=16", "max_env_steps=1600", f"run_dir={path}", "seed=3",
                "algo.warmup_steps=8", "algo.batch_size=32", "algo.hidden=[32,32]", "algo.replay_size=4096",
                "checkpoint_interval=800", "eval_interval=0", "eval_episodes=8", "video=false", "device=cpu",
            ]
        )
    )  # fmt: skip
    return path


@pytest.fixture
def run_copy(run_dir, tmp_path):
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


def fails(capsys, name, *argv):
    """The one line on stderr of a script that ends with exit code 2."""
    with pytest.raises(SystemExit) as end:
        script(name)([str(word) for word in argv])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


# --- evaluation --------------------------------------------------------------------------------------------------


def test_checkpoint_repeats_the_evaluation_that_ended_its_training(run_dir):
    summary = json.loads((run_dir / "summary.json").read_text())
    trained = evaluation.load_run(str(run_dir), 8, seed_of(3, "evaluation") % 2**31)
    result = evaluation.play(trained.env, trained.act)
    # `play` resets once more than the trainer, which starts from the environment's first state
    env = evaluation.make_env(trained.cfg, 8, seed_of(3, "evaluation") % 2**31)
    *_, same = evaluation.episodes(env, trained.act, env.state_dict())
    assert same.returns.mean() == pytest.approx(summary["eval_return"], rel=1e-4)
    assert result.returns.shape == (8,) and (result.lengths >= 1).all()


def test_what_a_runs_simulator_was_told_is_left_behind_for_another(run_copy, monkeypatch):
    path, seen = run_copy / "config.yaml", []
    text = path.read_text()
    assert text.count("metrics: []") == 1
    path.write_text(text.replace("metrics: []", "metrics: [success]"))
    monkeypatch.setattr(evaluation, "make_env", lambda cfg, *_: seen.append(cfg.sim) or fail_to_make())
    for sim in ("", "mujoco", "gymnasium"):
        with pytest.raises(tasks.TaskError, match="enough"):
            evaluation.load_run(str(run_copy), 2, sim=sim)
    assert [(sim.name, sim.metrics) for sim in seen] == [
        ("mujoco", ["success"]), ("mujoco", ["success"]), ("gymnasium", [])
    ]  # fmt: skip


def fail_to_make():
    raise tasks.TaskError("enough")


def test_interquartile_mean_of_a_hand_computed_sample():
    assert evaluation.interquartile_mean(np.arange(8.0)) == pytest.approx((2 + 3 + 4 + 5) / 4)
    # n = 5: from 1.25 to 3.75 of the sorted values' cells, so 3/4 of the second, the third, 3/4 of the fourth
    assert evaluation.interquartile_mean([4, 1, 100, 3, 2]) == pytest.approx((0.75 * 2 + 3 + 0.75 * 4) / 2.5)
    assert evaluation.interquartile_mean([7.0]) == 7.0


def test_bootstrap_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(5).normal(10.0, 2.0, 400)
    low, high = evaluation.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_evaluate_prints_text_then_one_line_of_json(run_dir, capsys):
    assert script("evaluate")([f"run_dir={run_dir}", "episodes=12"]) == 0
    *text, line = capsys.readouterr().out.strip().splitlines()
    values = json.loads(line)
    assert len(values["returns"]) == values["episodes"] == 12
    assert values["mean"] == pytest.approx(np.mean(values["returns"]))
    assert values["interquartile_mean"] == pytest.approx(evaluation.interquartile_mean(values["returns"]))
    for name in ("mean", "interquartile_mean"):
        low, high = values[f"{name}_interval"]
        assert min(values["returns"]) <= low <= values[name] <= high <= max(values["returns"])
    assert values["task"] == "Cartpole" and values["env_steps"] == 1600
    assert f"{values['mean']:.2f}" in text[1] and "mean length" in text[-1]


def test_evaluate_is_repeatable_and_its_seed_counts(run_dir, tmp_path, capsys):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.json"
        assert script("evaluate")([f"run_dir={run_dir}", "episodes=6", f"seed={seed}", f"json={out}"]) == 0
        found.append(json.loads(out.read_text())["returns"])
    assert found[0] == found[1] != found[2]
    assert "{" not in capsys.readouterr().out


def test_damaged_checkpoint_is_reported_and_the_one_before_evaluated(run_copy, capsys):
    newest = sorted((run_copy / "checkpoints").iterdir())[-1] / "p_learner.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert script("evaluate")([f"run_dir={run_copy}", "episodes=2", "json=-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["env_steps"] == 800
    assert "checksum" in err and "falling back" in err


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["play", "evaluate", "export"])
def test_folder_that_is_no_run_gets_one_line(name, tmp_path, capsys):
    assert "is no run" in fails(capsys, name, f"run_dir={tmp_path}/nowhere")
    assert "is no run" in fails(capsys, name, f"run_dir={tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_several_runs_names_them(run_copy, capsys):
    assert f"several runs ({run_copy.name}): name one" in fails(capsys, "evaluate", f"run_dir={run_copy.parent}")


def test_run_whose_checkpoints_are_all_damaged_is_not_sent_to_a_resume_that_refuses(run_copy, capsys):
    for manifest in run_copy.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{")
    capsys.readouterr()
    assert script("evaluate")([f"run_dir={run_copy}", "episodes=2", "checkpoint=best"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        script("evaluate")([f"run_dir={run_copy}"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert "none of its checkpoints can be read" in last and "checkpoint=best" in last and "resume" not in last


def test_file_that_cannot_be_written_is_refused_before_an_episode_is_played(run_copy, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # a disk mounted read-only, say
    assert "can be written" in fails(capsys, "evaluate", f"run_dir={run_copy}", f"json={run_copy / 'x.json'}")


def test_endless_film_is_refused(run_copy, capsys):
    assert "seconds=inf" in fails(capsys, "play", f"run_dir={run_copy}", "seconds=inf")


@pytest.mark.parametrize("name", ["play", "evaluate", "export"])
def test_run_without_a_checkpoint_gets_one_line(name, run_copy, capsys):
    shutil.rmtree(run_copy / "checkpoints")
    assert "holds no good checkpoint" in fails(capsys, name, f"run_dir={run_copy}")


@pytest.mark.parametrize("name", ["play", "evaluate", "export"])
def test_run_of_a_task_that_is_not_registered_gets_one_line(name, run_copy, capsys):
    path = run_copy / "config.yaml"
    path.write_text(path.read_text().replace("name: Cartpole", "name: Cartpoel"))
    assert "Cartpole" in fails(capsys, name, f"run_dir={run_copy}")
    path.write_text(path.read_text().replace("plugins: []", f"plugins: [gone_{name}.py]"))
    assert f"gone_{name}.py" in fails(capsys, name, f"run_dir={run_copy}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "run_dir=... is missing"),
        (["run_dir"], "not of the form key=value"),
        (["run_dri=x"], "did you mean run_dir?"),
        (["run_dir=x", "episodes=many"], "episodes=many"),
        (["run_dir=x", "episodes=0"], "at least 1"),
    ],
)
@pytest.mark.parametrize("name", ["play", "evaluate"])
def test_wrong_words_get_one_line(name, words, said, capsys):
    assert said in fails(capsys, name, *words)


def test_output_that_cannot_be_written_is_refused_before_any_work(run_dir, tmp_path, capsys):
    assert "does not" in fails(capsys, "play", f"run_dir={run_dir}", f"out={tmp_path}/no/video.mp4")
    assert "ends in .mp4" in fails(capsys, "play", f"run_dir={run_dir}", f"out={tmp_path}/video.gif")
    assert "ends in .onnx" in fails(capsys, "export", f"run_dir={run_dir}", f"out={tmp_path}/policy")
    assert "ends in .json" in fails(capsys, "evaluate", f"run_dir={run_dir}", f"json={tmp_path}")
    assert "greater than 0" in fails(capsys, "play", f"run_dir={run_dir}", "seconds=0")


@pytest.mark.parametrize("name", ["play", "evaluate", "export"])
def test_help_lists_every_key(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        script(name)(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "run_dir=..." in shown and max(map(len, shown.splitlines())) <= 80


# --- video -------------------------------------------------------------------------------------------------------


def test_video_plays_at_the_speed_of_life(run_copy, capsys):
    try:
        tasks.make("Cartpole", 1).render(32, 32)
    except tasks.TaskError as error:
        pytest.skip(str(error))
    imageio = pytest.importorskip("imageio.v2")
    assert script("play")([f"run_dir={run_copy}", "episodes=2", "seconds=2"]) == 0
    out = capsys.readouterr().out
    assert "mean return" in out and "video.mp4" in out
    video = imageio.get_reader(run_copy / "video.mp4")
    assert video.get_meta_data()["fps"] == pytest.approx(30.0)
    frames = list(video.iter_data())  # list(video) asks for a length, which is infinite
    assert len(frames) == 60  # 2 s of simulation: 120 control steps of 1/60 s, every second one drawn
    assert frames[0].shape == (480, 640, 3)
    assert 100 < frames[0].mean() < 230 and frames[0].std() > 15  # lit, and not one colour
    assert np.abs(frames[0].astype(int) - frames[20]).max() > 60  # something moves
    assert (run_copy / "video.mp4").stat().st_size < 2e6
    assert not list(run_copy.glob(".*part*"))


def test_encoder_that_stops_is_told_in_one_line_without_its_command():
    stopped = OSError("[Errno 32] Broken pipe\n\nFFMPEG COMMAND:\n/usr/bin/ffmpeg -y x.mp4\n\nFFMPEG STDERR OUTPUT:\n")
    assert reason(stopped) == "the encoder stopped ([Errno 32] Broken pipe); what it said stands above"
    assert reason(OSError("no\n disk")) == "no disk" and reason(KeyError()) == "KeyError"


def test_play_without_opengl_still_evaluates(run_copy):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "play.py"), f"run_dir={run_copy}", "episodes=2", "seconds=1"],
        env={**os.environ, "MUJOCO_GL": "disabled"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean return" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("note: no video") and "apt install" in line]
    assert not (run_copy / "video.mp4").exists()


PORTS = {"InvertedDoublePendulum-v5": ("gymnasium", "gym", 64), "dmc/cartpole-balance": ("dm_control", "dmc", 8)}


@pytest.mark.parametrize("task", PORTS)
def test_policy_gets_from_the_original_what_it_gets_from_the_port(task, tmp_path, capsys):
    """Mean returns, apart by at most 4.4 standard errors: a false alarm in 90,000 where the means are normal."""
    sim, extra, episodes = PORTS[task]
    pytest.importorskip(sim, reason=f"needs {sim}: pip install .[{extra}]")
    words = [
        f"task={task}", "runtime=sync", "num_envs=4", "max_env_steps=256", f"run_dir={tmp_path}/run", "compile=false",
        "algo.warmup_steps=8", "algo.batch_size=32", "algo.hidden=[32,32]", "algo.replay_size=4096", "video=false",
        "eval_interval=0", "eval_episodes=2", "device=cpu",
    ]  # fmt: skip
    trainer.train(config.load(words))
    found = []
    for more in ([], [f"sim={sim}"]):
        assert script("evaluate")([f"run_dir={tmp_path}/run", f"episodes={episodes}", "json=-", *more]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    port, original = found
    assert port["std"] > 0
    assert abs(port["mean"] - original["mean"]) <= 4.4 * np.hypot(port["std"], original["std"]) / episodes**0.5

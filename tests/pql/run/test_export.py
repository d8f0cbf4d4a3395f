"""export.py: the ONNX file acts as the trained policy does, from raw observations, and says what it is."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pql import algorithms, config
from pql.run import evaluation, export, trainer
from pql.runtime import checkpoint
from tasks.base import Spaces

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
ROOT = Path(__file__).resolve().parents[3]


def export_script(*words):
    spec = importlib.util.spec_from_file_location("script_export", ROOT / "scripts" / "export.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main([str(word) for word in words])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """BallBalance for 800 env steps: more observations and actions than Cartpole has."""
    path = tmp_path_factory.mktemp("run") / "ball"
    trainer.train(
        config.load(
            [
                "task=BallBalance", "runtime=sync", "num_envs=16", "max_env_steps=800", f"run_dir={path}", "seed=1",
                "algo.warmup_steps=8", "algo.batch_size=32", "algo.hidden=[32,16]", "algo.replay_size=4096",
                "algo.gamma=0.97", "checkpoint_interval=0", "eval_interval=0", "eval_episodes=2", "video=false",
                "device=cpu",
            ]
        )
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def exported(run_dir):
    assert export_script(f"run_dir={run_dir}", "steps=20") == 0
    return run_dir / "policy.onnx"


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])


def test_raw_observations_go_in_and_the_training_policys_actions_come_out(run_dir, session):
    folder, _ = checkpoint.newest(run_dir)
    cfg = config.read(run_dir / "config.yaml")
    obs_dim = session.get_inputs()[0].shape[1]
    action_dim = session.get_outputs()[0].shape[1]
    count, *moments = checkpoint.load_tensors(folder, "actor")["normalizer"].numpy()
    mean, variance = np.array(moments[:obs_dim]), np.array(moments[obs_dim:]) / count
    policy = algorithms.make(cfg.algo, Spaces(obs_dim, action_dim)).make_policy()
    weights = checkpoint.load_tensors(folder, "p_learner")["average"]
    torch.nn.utils.vector_to_parameters(weights, policy.parameters())

    source = np.random.default_rng(0)
    raw = (mean + source.normal(size=(500, obs_dim)) * np.sqrt(variance + 1e-8) * 3).astype(np.float32)
    scale = np.where(variance > 1e-12 * mean**2, 1 / np.sqrt(np.maximum(variance, 1e-30)), 1.0)
    normalised = np.clip((raw - mean) * scale, -10, 10).astype(np.float32)
    with torch.no_grad():
        expected = policy(torch.from_numpy(normalised)).numpy()
    (action,) = session.run(None, {"obs": raw})
    np.testing.assert_allclose(action, expected, atol=1e-4)  # the difference of float32 and float64 in normalising
    assert expected.std() > 1e-4  # not the same action whatever is seen


def test_batch_is_dynamic_and_actions_stay_in_range(session):
    obs_dim = session.get_inputs()[0].shape[1]
    for rows in (1, 2, 5, 333):
        (action,) = session.run(None, {"obs": np.full((rows, obs_dim), 1e6, np.float32)})
        assert action.shape == (rows, session.get_outputs()[0].shape[1])
        assert (np.abs(action) <= 1).all()


def test_metadata_say_what_the_policy_is(session):
    facts = session.get_modelmeta().custom_metadata_map
    env = evaluation.tasks.make("BallBalance", 1)
    assert facts["task"] == "BallBalance"
    assert (int(facts["obs_dim"]), int(facts["action_dim"])) == (env.obs_dim, env.action_dim)
    assert (float(facts["action_low"]), float(facts["action_high"])) == (-1, 1)
    assert int(facts["env_steps"]) == 800 and float(facts["gamma"]) == 0.97
    assert float(facts["control_step_s"]) == pytest.approx(env.dt)


def test_export_prints_its_own_lines_only(run_dir, tmp_path, capfd):
    assert export_script(f"run_dir={run_dir}", "steps=2", f"out={tmp_path / 'p.onnx'}") == 0
    out, err = capfd.readouterr()
    assert err == "" and len(out.splitlines()) == 2
    assert "largest difference" in out
    assert [path.name for path in tmp_path.iterdir()] == ["p.onnx"]


def test_file_that_acts_differently_is_not_kept(run_dir, tmp_path, monkeypatch, capsys):
    out = tmp_path / "policy.onnx"
    out.write_bytes(b"the one before")
    write = export._write

    def perturbed(policy, obs_dim, path):
        other = evaluation.load_run(str(run_dir), 1).act
        other.mean += 0.05
        write(other, obs_dim, path)

    monkeypatch.setattr(export, "_write", perturbed)
    assert export_script(f"run_dir={run_dir}", "steps=2", f"out={out}") == 1
    assert "does not act as" in capsys.readouterr().err
    assert out.read_bytes() == b"the one before" and len(list(tmp_path.iterdir())) == 1


def test_nan_is_no_parity():
    assert not export.Parity(1, float("nan")).holds
    assert export.Parity(1, 1e-5).holds and not export.Parity(1, 1.1e-5).holds


def test_missing_package_gets_one_line(run_dir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit) as end:
        export_script(f"run_dir={run_dir}")
    assert end.value.code == 2
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(("opset", "ir_version", "oldest"), [(11, 6, "1.6"), (15, 8, "1.9")])
def test_file_for_an_older_runtime_has_the_versions_that_it_reads(
    run_dir, tmp_path, opset, ir_version, oldest, capsys
):
    out = tmp_path / "policy.onnx"
    versions = f"opset={opset}", f"ir_version={ir_version}"
    assert export_script(f"run_dir={run_dir}", "steps=2", f"out={out}", *versions) == 0
    model = onnx.load(str(out))
    assert [entry.version for entry in model.opset_import] == [opset] and model.ir_version == ir_version
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith(f"opset {opset}, IR version {ir_version}: for onnxruntime {oldest} or newer")


def test_version_that_cannot_be_had_gets_one_line(run_dir, capsys):
    for word, said in (("opset=3", "at least 9, or 0"), ("opset=99", "none above"), ("ir_version=99", "none above")):
        with pytest.raises(SystemExit) as end:
            export_script(f"run_dir={run_dir}", "steps=2", word)
        err = capsys.readouterr().err
        assert end.value.code == 2 and err.count("\n") == 1 and said in err

"""What only a GPU can show: graphs, memory mapped by CUDA IPC, no wait of the host in a role's steady loop."""

from __future__ import annotations

import contextlib

import pytest
import torch

from pql import config
from pql.config import make_env
from pql.memory.device import IN_FLIGHT, InFlight
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.roles.p_learner import PLearner
from pql.roles.v_learner import VLearner
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from tasks import graphs
from tasks.base import Spaces
from tasks.graphs import WARM_UP

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda:0")


def on_gpu(tiny, **changes):
    return tiny(device="cuda", sim="plane", **changes)


def learner(role, tiny, algo, alike=False, **changes):
    """On a filled ring; `alike`: of equal rows, so that it does not matter which are drawn."""
    atoms = {"algo.num_atoms": 11} if algo == "pql_d" else {}
    cfg = config.load(on_gpu(tiny, algo=algo, **atoms, **{"algo.target_noise": 0.0}, **changes))
    algorithm, _, shared = prepare(cfg, Spaces(5, 2))
    generator = torch.Generator(GPU).manual_seed(0)
    replay = make_replay(cfg, algorithm, shared)
    rows = torch.randn(8, 12, device=GPU, generator=generator)
    for _ in range(100):
        rows = rows[:1].expand(8, 12) if alike else torch.randn(8, 12, device=GPU, generator=generator)
        obs, next_obs, action = rows.split((5, 5, 2), 1)
        replay.append(obs, action.tanh(), obs[:, 0], next_obs)
    return role(cfg, algorithm, replay, shared)


@contextlib.contextmanager
def no_wait():
    """An operation that makes the host wait for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("algo", ["pql", "pql_d"])
@pytest.mark.parametrize("role", [VLearner, PLearner])
def test_graph_gives_the_updates_of_plain_calls(tiny, plugin, role, algo):
    plain, graphed = (learner(role, tiny, algo, True, cuda_graphs=graphs) for graphs in ("false", "true"))
    for _ in range(WARM_UP + 20):
        plain.update()
        graphed.update()
    assert plain.graphed_step.graph is None and graphed.graphed_step.graph is not None
    for name, value in plain.state_dict().items():
        if name != "generator":
            torch.testing.assert_close(graphed.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)
    sums = [one.shared.boards[role.role].sums for one in (plain, graphed)]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seen", ["before", "while recording"])
def test_function_that_looks_at_a_value_goes_on_being_called(capfd, monkeypatch, seen):
    x, generator = torch.zeros(3, device=GPU), torch.Generator(GPU).manual_seed(0)
    if seen != "before":
        monkeypatch.setattr(graphs, "waits_noted", lambda: contextlib.nullcontext([]))

    def draws():
        x.add_(torch.rand(3, device=GPU, generator=generator))
        return float(x.sum())

    graphed = graphs.TorchGraph(draws, GPU, [generator], what="sums")
    sums = [graphed() for _ in range(WARM_UP + 3)]
    assert sums == sorted(sums) and len(set(sums)) == len(sums)
    said = capfd.readouterr().err
    assert said.count("note: no CUDA graph") == 1 and "sums are slower" in said
    if seen == "before":
        assert graphed.recordings == 0 and "test_gpu.py" in said
    again, same = torch.zeros(3, device=GPU), torch.Generator(GPU).manual_seed(0)
    for _ in sums:
        again += torch.rand(3, device=GPU, generator=same)
    assert torch.equal(x, again)
    torch.rand(3, device=GPU)


@pytest.mark.parametrize("role", [VLearner, PLearner])
def test_graph_draws_other_rows_each_time_and_sees_what_is_new(tiny, plugin, role):
    one = learner(role, tiny, "pql")
    for _ in range(WARM_UP + 2):
        one.update()
    drawn = []
    for _ in range(3):
        before = one.shared.boards[one.role].sums.clone()
        one.update()
        drawn.append((one.shared.boards[one.role].sums - before)[0].item())
    assert len(set(drawn)) == 3
    moments = torch.rand(one.normalizer.state.shape, dtype=torch.float64, device=GPU) + 1
    one.shared.normalizer.publish(moments)
    one.update()
    assert torch.equal(one.normalizer.state, moments)


@pytest.mark.parametrize("graphs", ["true", "false"])
@pytest.mark.parametrize("role", [VLearner, PLearner])
def test_learners_never_wait_but_for_their_own_work_of_two_updates_ago(tiny, plugin, role, graphs):
    one = learner(role, tiny, "pql", cuda_graphs=graphs)
    for _ in range(WARM_UP + 2):
        one.update()
    with no_wait():
        for _ in range(10):
            one.update()


@pytest.mark.parametrize("role", [VLearner, PLearner])
def test_diagnosis_is_a_graph_too_and_tells_what_a_plain_one_does(tiny, plugin, role):
    plain, graphed = (learner(role, tiny, "pql_d", cuda_graphs=graphs) for graphs in ("false", "true"))
    for one in (plain, graphed):
        one.receive()  # the other roles' networks, of which a new learner has none
        for _ in range(WARM_UP + 1):
            one.graphed_diagnose()
        with no_wait():
            one.graphed_diagnose()
    assert plain.graphed_diagnose.graph is None and graphed.graphed_diagnose.graph is not None
    sums = [one.shared.gauges[role.role].sums for one in (plain, graphed)]
    assert (sums[0][1] > 0).all()
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("told", ["false", "true"])
def test_actor_never_waits_but_for_its_own_work_of_two_steps_ago(tiny, plugin, told):
    cfg = config.load(on_gpu(tiny, **{"task.options.told": told}))
    env = make_env(cfg, cfg.num_envs, 0)
    algorithm, _, shared = prepare(cfg, env.spaces)
    replay = make_replay(cfg, algorithm, shared)
    one = Actor(cfg, env, algorithm, replay, shared)
    for _ in range(cfg.algo.warmup_steps + 3):
        one.step()
    with no_wait():
        for _ in range(10):
            one.step()
    one.state_dict()


def test_no_more_than_two_steps_are_in_flight():
    in_flight, done = InFlight(GPU), torch.zeros(1, dtype=torch.int64, device=GPU)
    seen = []
    for _ in range(6):
        torch.cuda._sleep(20_000_000)
        done += 1
        seen.append(in_flight(done))
    assert seen[:IN_FLIGHT] == [None] * IN_FLIGHT
    assert [int(value) for value in seen[IN_FLIGHT:]] == [1, 2, 3, 4]


def test_what_is_not_a_number_is_noticed_two_steps_late_and_never_saved(tiny, tmp_path):
    changes = {"task.options.nan_at": 30, "task.options.only": 8, "checkpoint_interval": 80}
    with pytest.raises(FloatingPointError, match=r"1 of 8 environments \(first: 4\) at vector step 29"):
        train(config.load(on_gpu(tiny, **changes)))
    for path in (tmp_path / "run" / "checkpoints").glob("*/actor.safetensors"):
        from safetensors.torch import load_file

        assert all(value.isfinite().all() for value in load_file(path).values())


CHANGES = {
    "plain": {}, "pql_d": {"algo": "pql_d"}, "told": {"task.options.told": "true"},
    "bfloat16": {"autocast": "true", "algo.replay_dtype": "bfloat16"},
    "v_on_cpu": {"algo.v_device": "cpu"}, "p_on_cpu": {"algo.p_device": "cpu"},
    "v_on_second": {"algo.v_device": "cuda:1"},
}  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("runtime", ["parallel", "sync"])
def test_run_on_a_gpu_holds_its_ratio_and_can_be_resumed(tiny, tmp_path, runtime, changes):
    if torch.cuda.device_count() == 1 and "cuda:1" in changes.values():
        pytest.skip("one GPU is there; the V-learner is to have a second")
    summary = train(config.load(on_gpu(tiny, runtime=runtime, **changes)))
    assert summary["status"] == "completed" and summary["critic_updates"] == 200 and summary["device"] == "cuda"
    line = [x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "critic_loss" in x][-1]
    assert line["critic_loss"] == line["critic_loss"] and line["invalid_transitions"] == 0
    resumed = train(config.load([f"run_dir={tmp_path / 'run'}", "resume=true", "max_env_steps=2400"]))
    assert resumed["critic_updates"] == 300


def test_point_is_learned_on_a_gpu_with_graphs_and_bfloat16(tiny, tmp_path):
    """As test_critic_obs.py bounds it on a CPU."""
    settings = {"algo.critic_updates_per_step": 2, "algo.critic_lr": 0.003, "algo.actor_lr": 0.003}
    changes = {"max_env_steps": 8000, "eval_episodes": 32, "algo.replay_size": 8000, **settings}
    for autocast in ("false", "true"):
        summary = train(config.load(on_gpu(tiny, autocast=autocast, run_dir=tmp_path / autocast, **changes)))
        assert summary["eval_return"] > 12

"""What only a GPU can show: graphs, memory mapped by CUDA IPC, no wait of the host in a role's steady loop."""

from __future__ import annotations

import contextlib

import pytest
import torch

from pql import config
from pql.config import make_env
from pql.errors import UserError
from pql.memory.device import IN_FLIGHT, InFlight
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.roles.p_learner import PLearner
from pql.roles.v_learner import VLearner
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint
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


SMALL = {"algo.replay_size": 400}
FAR = {"algo.replay_device": "cpu", "runtime": "parallel", **SMALL}


def stamp(one, value, vector_steps=50):
    """Fill the ring of a learner, and more, with rows of this return."""
    obs = torch.zeros(8, 5, device=GPU)
    for _ in range(vector_steps):
        one.replay.append(obs, obs[:, :2], obs[:, 0] + value, obs)


def test_ring_on_the_host_lies_there_and_is_written_and_read_by_kernels(tiny, plugin):
    one = learner(VLearner, tiny, "pql", **FAR)
    ring, rows = one.shared.ring, one.replay.rows
    assert not ring["rows"].is_cuda and rows.device == GPU and rows.data_ptr() == ring["rows"].data_ptr()
    assert all(part.device == GPU for name, part in ring.items() if name != "rows")
    stamp(one, 7.0)
    batch = one.unpack(one.sample())
    torch.cuda.synchronize()
    assert (ring["rows"][:, -2] == 7.0).sum() >= len(one.replay) > 150 and (batch.return_n == 7.0).all()


@pytest.mark.parametrize("graphs", ["true", "false"])
def test_prefetched_batches_are_those_of_an_update_earlier(tiny, plugin, graphs):
    plain, far = (learner(VLearner, tiny, "pql", cuda_graphs=graphs, **more) for more in (SMALL, FAR))
    assert plain.prefetch is None
    for _ in range(WARM_UP + 10):  # a ring that stands still: it makes no difference when they are drawn
        plain.update()
        far.update()
    torch.testing.assert_close(far.weights.data, plain.weights.data, rtol=1e-4, atol=1e-5)
    assert int(far.replay.conflicts) == 0
    used = torch.zeros(2, device=GPU)  # least and largest return that an update learns from
    far.improved = lambda rows, noises, improve=far.improved: (
        used.copy_(torch.stack(rows.first[:, -2].aminmax())), improve(rows, noises))[1]  # fmt: skip
    far.graphed_step.graph = None  # to be recorded anew
    stamp(far, 10.0)
    for value in (20.0, 30.0):
        far.update()
        stamp(far, value)
    far.update()
    assert used.tolist() == [20.0] * 2 and (far.prefetch.rows.first[:, -2] == 30.0).all()


@pytest.mark.parametrize("replay_device", ["cuda:1", "cuda:0"])
def test_ring_is_on_the_host_or_on_the_device_of_the_run(tiny, plugin, replay_device):
    with pytest.raises(UserError, match=rf"^algo\.replay_device={replay_device}.* (cpu, or null|is not there)"):
        config.load(on_gpu(tiny, **{"algo.replay_device": replay_device}))


@pytest.mark.parametrize("changes", [{}, {"cuda_graphs": "false"}, FAR], ids=["graphs", "no graphs", "ring on host"])
@pytest.mark.parametrize("role", [VLearner, PLearner])
def test_learners_never_wait_but_for_their_own_work_of_two_updates_ago(tiny, plugin, role, changes):
    one = learner(role, tiny, "pql", **changes)
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


@pytest.mark.parametrize("changes", [{}, {"task.options.told": "true"}, FAR], ids=["plain", "told", "ring on host"])
def test_actor_never_waits_but_for_its_own_work_of_two_steps_ago(tiny, plugin, changes):
    cfg = config.load(on_gpu(tiny, **changes))
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
    "v_on_second": {"algo.v_device": "cuda:1"}, "ring_on_host": {"algo.replay_device": "cpu"},
}  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("runtime", ["parallel", "sync"])
def test_run_on_a_gpu_holds_its_ratio_and_can_be_resumed(tiny, tmp_path, runtime, changes):
    if torch.cuda.device_count() == 1 and "cuda:1" in changes.values():
        pytest.skip("one GPU is there; the V-learner is to have a second")
    summary = train(config.load(on_gpu(tiny, runtime=runtime, **changes)))
    assert summary["status"] == "completed" and summary["critic_updates"] == 200 and summary["device"] == "cuda"
    line = [x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "critic_loss" in x][-1]
    assert line["critic_loss"] == line["critic_loss"] and line["invalid_transitions"] == line["replay_conflicts"] == 0
    resumed = train(config.load([f"run_dir={tmp_path / 'run'}", "resume=true", "max_env_steps=2400"]))
    assert resumed["critic_updates"] == 300


def test_sync_is_the_same_to_the_bit_wherever_the_ring_lies_and_lay(tiny, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    short = {"eval_interval": 0, "eval_episodes": 1, **SMALL}
    train(config.load(on_gpu(tiny, run_dir=here, max_env_steps=720, **short)))
    train(config.load(on_gpu(tiny, run_dir=there, max_env_steps=160, **short, **{"algo.replay_device": "cpu"})))
    for limit, device in ((240, "null"), (720, "cpu")):  # 400 rows fit
        words = ["resume=true", f"max_env_steps={limit}", f"algo.replay_device={device}"]
        train(config.load([f"run_dir={there}", *words]))
    for name in ("actor", "v_learner", "p_learner", "replay"):
        one, two = (checkpoint.load_tensors(folder / "checkpoints/000000000720", name) for folder in (here, there))
        assert one and all(torch.equal(one[key], two[key]) for key in one), name


def test_point_is_learned_on_a_gpu_with_graphs_and_bfloat16(tiny, tmp_path):
    """As test_critic_obs.py bounds it on a CPU."""
    settings = {"algo.critic_updates_per_step": 2, "algo.critic_lr": 0.003, "algo.actor_lr": 0.003}
    changes = {"max_env_steps": 8000, "eval_episodes": 32, "algo.replay_size": 8000, **settings}
    for autocast in ("false", "true"):
        summary = train(config.load(on_gpu(tiny, autocast=autocast, run_dir=tmp_path / autocast, **changes)))
        assert summary["eval_return"] > 12

"""When a learner looks, at what, and that nothing else changes by it; what the actor measures."""

from __future__ import annotations

import pytest
import torch

from pql import config
from pql.memory.shared import Gauges
from pql.roles.build import LEARNERS, make_replay, prepare
from pql.roles.diagnosis import EVERY, Diagnosis
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from tasks.base import Spaces


@pytest.fixture
def learner(tiny, plugin):
    def make(role="v_learner", algo="pql"):
        cfg = config.load(tiny(algo=algo))
        algorithm, _, shared = prepare(cfg, Spaces(5, 2))
        one = LEARNERS[role](cfg, algorithm, make_replay(cfg, algorithm, shared), shared)
        for n in range(30):
            write(one, n)
        return one

    return make


def write(one, n):
    """A vector step of 8 rows."""
    generator = torch.Generator().manual_seed(n)
    obs, next_obs = torch.randn(2, 8, 5, generator=generator)
    one.replay.append(obs, torch.rand(8, 2, generator=generator), obs[:, 0], next_obs)
    one.shared.vector_steps += 1


def told(one):
    gauges = one.shared.gauges[one.role]
    return gauges.means(torch.zeros_like(gauges.sums))


def test_a_look_is_due_once_in_so_many_updates_at_the_first_after_a_vector_step(learner):
    one = learner()
    diagnosis = Diagnosis(one.algorithm, one.role, 32, one.replay, one.device)
    steps = [step for step in range(1, 400) for _ in range(3)]  # three updates per vector step
    due = [n for n, step in enumerate(steps) if diagnosis.due(n, step)]
    assert due == list(range(258, 1197, 258)) and EVERY == 256  # the first multiple of three past it, and so on
    assert not diagnosis.due(5000, 399)  # no vector step since the last update


@pytest.mark.parametrize("role", ["v_learner", "p_learner"])
@pytest.mark.parametrize("algo", ["pql", "pql_d", "sac"])
def test_a_diagnosis_changes_nothing_that_learning_depends_on(learner, role, algo):
    looking, other = learner(role, algo), learner(role, algo)
    for n in range(20):
        looking.diagnose()
        for one in (looking, other):
            one.update()
            write(one, 100 + n)
    mine, theirs = looking.state_dict(), other.state_dict()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []
    assert torch.equal(looking.shared.boards[role].sums, other.shared.boards[role].sums)
    assert all(module.training for module in looking.weights.modules.values())
    assert set(told(looking)) == set(looking.shared.gauges[role].names)
    assert told(other) == {}  # it has done too few updates


def test_only_rows_that_no_sample_can_have_held_are_fresh(learner):
    one = learner()
    one.update()
    one.diagnose()
    assert "td_error_fresh" not in told(one) and told(one)["td_error_replay"] > 0
    write(one, 50)
    one.diagnose()
    assert float(one.shared.gauges[one.role].sums[1, one.shared.gauges[one.role].names.index("td_error_fresh")]) == 8
    rows, numbers = one.replay.newest(4)
    assert numbers.tolist() == [240, 242, 244, 246]  # spread over the environments of the last vector step
    assert torch.equal(rows.first, one.replay.rows_at(numbers).first)


def test_age_of_sampled_rows_counts_the_transitions_that_came_after(learner):
    one = learner()
    unit = torch.tensor([0.0, 0.5, 0.999999], dtype=torch.float64)
    assert one.replay.ages(unit).tolist() == [239, 119, 0]


def test_step_as_a_share_of_the_weights_is_that_of_the_step_taken(learner):
    one = learner("v_learner", "sac")  # without decay
    for _ in range(3):
        before = one.weights.data.clone()
        one.update()
    moved = (one.weights.data - before).norm() / one.weights.data.norm()
    assert float(one.optimizers["critic"].relative_step()) == pytest.approx(float(moved), rel=1e-3)


def test_gauges_are_means_over_counts_of_their_own():
    gauges = Gauges(("a", "b", "c"))
    gauges.add(torch.tensor([6.0, 1.0, float("nan")]), torch.tensor([3, 1, 1]))
    gauges.add(torch.tensor([2.0, 0.0, 0.0]), torch.tensor([1, 0, 0]))
    assert gauges.means(torch.zeros(2, 3, dtype=torch.float64)) == {"a": 2.0, "b": 1.0}


def _last(run_dir):
    """The newest line that a diagnosis went into."""
    return [line for line in read_metrics(run_dir / "metrics.jsonl") if "td_error_ratio" in line][-1]


def test_what_tasks_and_roles_measure_reaches_the_log_alone_and_in_a_pack(tmp_path, mujoco):
    words = ["task=Ant", "sim=mujoco", "device=cpu", "runtime=sync", "num_envs=8", "max_env_steps=1200", "video=false"]
    words += ["log_interval=400", "eval_episodes=2", "eval_interval=0", "compile=false", "algo.batch_size=16"]
    words += ["algo.hidden=[16]", "algo.replay_size=4000", "algo.warmup_steps=4", "algo.critic_updates_per_step=3"]
    words += ["matmul_precision=highest", "sim.threads=1"]
    train(config.load([*words, "seed=1", f"run_dir={tmp_path / 'alone'}"]))
    from pql.run.pack import train_together

    train_together([config.load([*words, f"seed={k}", f"run_dir={tmp_path / str(k)}"]) for k in (0, 1)])
    alone, packed = (_last(tmp_path / name) for name in ("alone", "1"))
    parts = ("progress", "upright", "heading", "action_cost", "joint_cost")
    names = {"task/forward_velocity", *(f"task/reward/{part}" for part in parts)}
    names |= {"clipped_actions", "critic_dormant_units", "td_error_ratio", "critic_weight_norm", "replay_age"}
    assert names <= set(alone) and names <= set(packed)
    assert alone["replay_conflicts"] == packed["replay_conflicts"] == 0
    for name in names:
        assert packed[name] == pytest.approx(alone[name], rel=0.02, abs=1e-3), name
    # random actions of an ant that stands: upright most of the time, and each action costs .005 of its square
    assert 0.05 < alone["task/reward/upright"] <= 0.1 and 0 < alone["task/reward/action_cost"] <= 0.04

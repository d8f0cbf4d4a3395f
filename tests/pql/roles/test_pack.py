"""Learners side by side: in float64 each does to its weights what it does alone."""

from __future__ import annotations

import shutil

import pytest
import torch

from pql import config
from pql.roles.build import LEARNERS, make_replay, prepare
from pql.roles.pack import Learners, lay_out_rings, share_counters
from pql.roles.recorded import Recorded
from pql.roles.together import Together, as_one, in_rows
from tasks.base import Spaces

ROWS, UPDATES = 96, 20


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def replicas(tmp_path, algo, together):
    """V- and P-learners of three seeds and step sizes, on rings of random transitions."""
    rates, cfgs = (1e-3, 3e-3, 1e-2), []
    for k, rate in enumerate(rates):
        words = ["task=Cartpole", f"algo={algo}", "device=cpu", "runtime=sync", "compile=false", "num_envs=4"]
        words += ["algo.hidden=[8,8]", "algo.batch_size=16", "algo.warmup_steps=4", f"algo.replay_size={ROWS}"]
        words += ["algo.critic_updates_per_step=1", "algo.normalize_obs=true", f"algo.critic_lr={rate}"]
        words += [f"algo.tau={10 * rate}", f"seed={k}", f"run_dir={tmp_path / str(k)}"]
        cfgs.append(config.load(words))
    parts = [prepare(cfg, Spaces(3, 2)) for cfg in cfgs]
    shareds = [part.shared for part in parts]
    if together:
        lay_out_rings(shareds)
    for k, shared in enumerate(shareds):
        replay, generator = make_replay(cfgs[k], parts[k].algorithm, shared), torch.Generator().manual_seed(k)
        for _ in range(ROWS // 4):
            obs, next_obs = torch.randn(2, 4, 3, generator=generator)
            replay.append(obs, torch.randn(4, 2, generator=generator), obs[:, 0], next_obs)
        moments = torch.tensor([10.0, 0.1, 0.2, 0.3, 9.0, 10.0, 11.0])
        shared.normalizer.publish(moments + k)
    made = [
        {role: kind(cfg, part.algorithm, make_replay(cfg, part.algorithm, part.shared), part.shared)
         for role, kind in LEARNERS.items()}
        for cfg, part in zip(cfgs, parts)
    ]  # fmt: skip
    return shareds, made


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="compiled gradients need a C++ compiler")


@pytest.mark.filterwarnings("ignore:(?s).*grad and param do not obey")
@pytest.mark.parametrize(
    "algo, compile", [("pql", None), ("sac", None), pytest.param("pql", "p_learner", marks=needs_compiler)]
)
def test_updates_in_float64_are_those_of_learners_alone_to_twelve_digits(tmp_path, double, algo, compile, capsys):
    _, alone = replicas(tmp_path / "alone", algo, together=False)
    shareds, members = replicas(tmp_path / "pack", algo, together=True)
    share_counters(shareds)
    packs = [Learners([roles[role] for roles in members], {}, compile == role) for role in LEARNERS]
    if torch.__version__ < "2.5":  # it can't read several rings at once, which is known before a pack begins
        with pytest.raises(RuntimeError, match="Batching rule not implemented"):
            packs[0].try_losses()
        return
    for _ in range(UPDATES):
        for pack in packs:
            pack.update()
        for roles in alone:
            for learner in roles.values():
                learner.update()
    for mine, theirs in zip(members, alone):
        for role in LEARNERS:
            state, expected = mine[role].state_dict(), theirs[role].state_dict()
            assert state.keys() == expected.keys()
            assert state["weights"].dtype == torch.float64
            for name in state:
                assert torch.allclose(state[name].double(), expected[name].double(), rtol=1e-12, atol=1e-13), name
            board, other = (learner.shared.boards[role].sums for learner in (mine[role], theirs[role]))
            assert torch.allclose(board, other, rtol=1e-12) and board[-1] == UPDATES
    assert "not compiled" not in capsys.readouterr().err


class Part:
    def __init__(self, number):
        self.own = torch.full((2,), float(number))
        self.count = torch.zeros(1)
        self.inner = {"table": torch.full((3,), 10.0 * number)}

    def move(self, by):
        self.own += by
        self.inner["table"].mul_(2)
        self.count += 1
        return self.own.sum()


def test_what_is_done_for_all_is_seen_by_each():
    parts = [Part(1), Part(2)]
    as_one(parts, "count")
    both = Together(parts, ["own", "inner.table"])
    sums = both(Part.move, torch.tensor([0.5, 1.0]))
    # 1 and 2 twice, moved by a half and by one
    assert sums.tolist() == [3.0, 6.0]
    assert [part.own.tolist() for part in parts] == [[1.5, 1.5], [3.0, 3.0]]
    assert [part.inner["table"].tolist() for part in parts] == [[20.0] * 3, [40.0] * 3]
    assert [int(part.count) for part in parts] == [1, 1]
    assert in_rows(parts, "own") is both.rows["own"]  # they are rows already


def test_counters_that_differ_are_not_made_one():
    parts = [Part(1), Part(2)]
    parts[1].count += 1
    with pytest.raises(ValueError, match="count differs"):
        as_one(parts, "count")


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_compiler)])
def test_what_is_recorded_happens_once_at_every_call_the_first_included(compile, capsys):
    total, weight = torch.zeros(2), torch.full((2,), 3.0, requires_grad=True)

    def add(x):
        total.add_(x["by"])
        (slope,) = torch.autograd.grad((weight * total).sum() ** 2, [weight])
        return {"twice": total * 2, "slope": slope}

    recorded = Recorded(add, compile)
    for by, sums in ((1.0, 1.0), (2.0, 3.0), (-1.0, 2.0)):
        found = recorded({"by": torch.full((2,), by)})
        assert total.tolist() == [sums] * 2 and found["twice"].tolist() == [2 * sums] * 2
        # d/dw (2 w t)^2 / 2 each: 2 (sum of w t) t
        assert found["slope"].tolist() == [2 * (2 * float(weight.detach()[0]) * sums) * sums] * 2
        with torch.no_grad():
            weight.add_(1.0)  # what it reads is read anew
    assert "not compiled" not in capsys.readouterr().err

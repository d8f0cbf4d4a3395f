"""The ratio: a pacer's invariants in every interleaving, then three real processes watched from outside."""

from __future__ import annotations

import math
import random
import threading

import pytest

from pql import config
from pql.memory.pacing import Pacer, critic_pacer, policy_pacer, replay_guard
from pql.run import trainer

RATIOS = [0.25, 1 / 3, 1, 4, 16]


def every_state(pacer, limit):
    """All (leader, follower) counts that any interleaving of the two can reach, the leader stopping at `limit`."""
    seen, open_ = {(0, 0)}, [(0, 0)]
    while open_:
        leader, follower = open_.pop()
        after = []
        if leader < limit and pacer.leader_may_step(leader, follower):
            after.append((leader + 1, follower))
        if pacer.follower_may_step(leader, follower):
            after.append((leader, follower + 1))
        assert after or leader == limit, f"both wait for each other at {leader, follower}"
        # once the leader has stopped the follower ends at just what belongs to its steps
        if not after:
            assert follower == (0 if limit < pacer.warmup else math.floor(pacer.ratio * limit + 1e-6))
        for state in after:
            if state not in seen:
                seen.add(state)
                open_.append(state)
    return seen


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("lead", [1, 2, 5])
@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("limit", [3, 40])
def test_pacer_keeps_its_bounds_and_never_locks_up_in_any_interleaving(ratio, lead, warmup, limit):
    """Every reachable state is visited, so this is a proof for these numbers."""
    states = every_state(Pacer(ratio, lead, warmup), limit)
    debt_of_warmup = ratio * warmup
    for leader, follower in states:
        ahead = ratio * leader - follower
        assert ahead >= -1e-9, "the follower is ahead of the ratio"
        assert ahead <= max(ratio * lead + 1, debt_of_warmup) + 1e-6
        if leader > warmup:  # the warm-up's debt was paid before the leader went on
            assert ahead <= ratio * lead + 1 + 1e-6


def test_pacer_refuses_what_would_lock_up():
    for ratio, lead in ((0, 2), (-1, 2), (1, 0.5)):
        with pytest.raises(ValueError):
            Pacer(ratio, lead)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("every", [1, 2, 5])
def test_guard_covers_what_is_written_while_a_learner_gathers_a_batch(ratio, every):
    """From many states: one learner freezes as it begins to gather, and the other two run until they must wait."""
    cfg = config.Config()
    cfg.num_envs, cfg.lead_steps = 10, 2
    cfg.algo.critic_updates_per_step, cfg.algo.critic_updates_per_policy_update = ratio, every
    cfg.algo.warmup_steps = 5
    critic, policy = critic_pacer(cfg), policy_pacer(cfg)

    def able(steps, updates, policy_updates):
        """role -> the state after its next turn, for the roles that may take one."""
        states = {}
        if critic.leader_may_step(steps, updates):
            states["actor"] = (steps + 1, updates, policy_updates)
        if critic.follower_may_step(steps, updates) and policy.leader_may_step(updates, policy_updates):
            states["v_learner"] = (steps, updates + 1, policy_updates)
        if policy.follower_may_step(updates, policy_updates):
            states["p_learner"] = (steps, updates, policy_updates + 1)
        return states

    def written_while_frozen(state, frozen):
        began = state[0]
        while True:
            others = [after for role, after in able(*state).items() if role != frozen]
            if not others:
                return state[0] - began + 1  # the last one may still be in the writing
            state = others[0]

    guard_steps = replay_guard(cfg) // cfg.num_envs
    rng = random.Random(every)
    state, worst = (0, 0, 0), 0
    for turn in range(4000):
        favourite = ("actor", "v_learner", "p_learner")[turn // 50 % 3]  # takes the states to their edges
        states = able(*state)
        for role in ("v_learner", "p_learner"):
            if role in states:
                worst = max(worst, written_while_frozen(state, role))
        state = states.get(favourite) or states[rng.choice(sorted(states))]
    assert worst <= guard_steps <= max(2 * worst, worst + 3)  # enough, and not much more than enough


@pytest.fixture
def watched(monkeypatch):
    """`watched(overrides)` trains and returns (summary, samples): the counters as a thread saw them on the way."""
    held = {}
    prepare = trainer.prepare

    def capture(*args):
        parts = prepare(*args)
        held["shared"] = parts.shared
        return parts

    monkeypatch.setattr(trainer, "prepare", capture)

    def run(overrides):
        cfg = config.load(overrides)
        samples, over = [], threading.Event()

        def watch():
            while not over.wait(0.001):
                shared = held.get("shared")
                if shared is not None:
                    # the follower is read first and once more after the leader: the truth lies between the two
                    before = int(shared.critic_updates), int(shared.policy_updates)
                    leader = int(shared.vector_steps)
                    between = int(shared.critic_updates)
                    samples.append((leader, before[0], between, before[1], int(shared.policy_updates)))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            return cfg, trainer.train(cfg), samples
        finally:
            over.set()
            thread.join()

    return run


@pytest.mark.parametrize("ratio", [0.25, 1, 4, 16])
def test_parallel_run_holds_the_ratio_at_all_times_and_ends_on_it(tiny, watched, ratio):
    """At no time further off than the stated tolerance; at the end within 1 % (in fact exact but for rounding)."""
    vector_steps = {0.25: 1500, 1: 1000, 4: 600, 16: 200}[ratio]
    cfg, summary, samples = watched(
        tiny(
            runtime="parallel", max_env_steps=8 * vector_steps, eval_interval=0,
            **{"algo.critic_updates_per_step": ratio, "algo.replay_size": 4000},
        )
    )  # fmt: skip
    requested = ratio / 8
    assert summary["utd"] == pytest.approx(requested, rel=0.01)
    assert summary["critic_updates"] == math.floor(ratio * vector_steps)
    assert summary["policy_updates"] == summary["critic_updates"] // 2
    critic, policy = critic_pacer(cfg), policy_pacer(cfg)
    seen = set()
    for steps, updates_before, updates_after, policy_before, policy_after in samples:
        if steps <= cfg.algo.warmup_steps:  # free until then, and then its debt is made up for
            continue
        assert ratio * steps - updates_after <= critic.tolerance + 1e-6
        # up to one vector step may have ended between the two readings of counters that belong together
        assert updates_before <= ratio * steps + 1e-6
        assert policy.ratio * updates_before - policy_after <= policy.tolerance + 1e-6
        assert policy_before <= policy.ratio * updates_after + 1e-6
        seen.add(steps)
    assert len(seen) > 20, "the thread hardly saw the run"


def test_utd_means_the_same_as_critic_updates_per_step(tiny):
    summary = trainer.train(
        config.load(tiny(eval_interval=0, **{"algo.critic_updates_per_step": None, "algo.utd": 0.25}))
    )
    assert summary["critic_updates"] == 400 and summary["utd_requested"] == 0.25
    assert summary["utd"] == pytest.approx(0.25, rel=0.01)


def test_measured_ratio_waits_and_ages_are_metrics(tiny, tmp_path, watched):
    from pql.run.metrics import read_metrics

    watched(tiny(runtime="parallel", eval_interval=0))
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "eval_return" not in line]
    assert len(lines) >= 4
    updates = 0
    for line in lines:
        assert {"utd", "wait_actor", "wait_v_learner", "wait_p_learner"} <= set(line)
        assert line["utd"] == line["critic_updates"] / line["env_steps"]
        assert all(line[f"wait_{role}"] >= 0 for role in ("actor", "v_learner", "p_learner"))
        if line["critic_updates"] > updates + 1:  # a mean of nothing is no metric; one update may be under way
            # a policy update may be up to 2 * 2 critic updates behind, that is 2 of its own and one under way
            assert 0 <= line["policy_age"] <= 3
        updates = line["critic_updates"]
    assert updates == 200

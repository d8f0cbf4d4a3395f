"""IsaacGymEnvs' real code on the stand-in: does every transition in replay belong to one episode?

`python check_replay.py TASK STEPS [task.cfg.FIELD=VALUE ...]` prints counts as JSON; what is wrong raises.

The books are kept apart from the adapter: which environments the simulator's setters have overwritten (so a new
episode began), how many physics steps ago that was (so how old the episode is), and what the task's own `step`
returned. From these a loop over every single window derives the row that replay must hold.
"""

import isaacgym  # noqa: F401 (before torch)

# isort: split
import json
import math
import sys

import torch
from isaacgym.simulator import EXISTING

from pql import config
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from tasks.simulators.isaacgym_env import make

ENVS, N_STEP, GAMMA = 16, 3, 0.9


def spy(task, sim_of):
    """A list that gets a dictionary for every step of the task: overwritten, age, obs, reward, flag (N rows each)."""
    book, step, began = [], task.step, torch.full((ENVS,), -1, dtype=torch.long)

    def watched(action):
        sim = sim_of()
        known = len(sim.resets)
        obs, reward, flag, extras = step(action)
        overwritten = torch.zeros(ENVS, dtype=torch.bool)
        for frame, env in sim.resets[known:]:
            overwritten[env], began[env] = True, frame
        book.append(
            {
                "action": action.clone(),
                "overwritten": overwritten,
                "age": sim.frame - began.clone(),
                "obs": obs["obs"].clone(),
                "reward": reward.clone(),
                "flag": flag.clone() != 0,
            }
        )
        return obs, reward, flag, extras

    task.step = watched
    return book


def expected(book, t, env, limit, falls_by):
    """The row that the window beginning with step `t` must leave, or None if it must not be learned from."""

    def fate(u):
        """'joined', 'fall', 'time' or 'on' for step u."""
        step = book[u]
        if step["overwritten"][env]:
            return "joined"
        if not step["flag"][env]:
            return "on"
        return "time" if step["age"][env] >= limit - 1 else "fall"

    def usable(u):
        # a flag on the last step may hide a fall, once falls are known to happen
        return fate(u) != "joined" and not (fate(u) == "time" and falls_by[u])

    if not usable(t):
        return None
    total = 0.0
    for k in range(N_STEP):
        total += GAMMA**k * float(book[t + k]["reward"][env])
        ended = fate(t + k)
        last = k == N_STEP - 1 or ended != "on" or not usable(t + k + 1)
        if last:
            discount = 0.0 if ended == "fall" else GAMMA ** (k + 1)
            return book[t - 1]["obs"][env], book[t]["action"][env], total, book[t + k]["obs"][env], discount
    raise AssertionError("unreachable")


def main(name, steps, overrides):
    torch.set_num_threads(1)
    settings = [
        f"task={name}", "sim=isaacgym", "device=cpu", f"num_envs={ENVS}", "seed=3", "algo.hidden=[8]",
        f"algo.replay_size={ENVS * steps}", "algo.batch_size=32", f"algo.warmup_steps={steps + 1}",
        f"algo.n_step={N_STEP}", f"algo.gamma={GAMMA}", "algo.critic_updates_per_step=1", "algo.reward_scale=1",
        "run_dir=unused", *overrides,
    ]  # fmt: skip
    cfg = config.load(settings)
    env = make(cfg.task.name, ENVS, cfg.device, seed=3, cfg=cfg.task.cfg)
    limit = env.max_episode_steps
    book = spy(env.task, lambda: EXISTING[0])
    algorithm, _, shared = prepare(cfg, env.spaces)
    replay = make_replay(cfg, algorithm, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    for _ in range(steps):
        actor.step()
    assert book[0]["overwritten"].all(), "the first reset must begin an episode everywhere"
    assert len(book) == steps + 1  # the reset is a step

    joined = [step["overwritten"] for step in book]
    falls = [s["flag"] & ~s["overwritten"] & (s["age"] < limit - 1) for s in book]
    # the flag of the reset's own step is no fall of an episode that anybody saw
    falls_by = [bool(torch.stack(falls[1 : u + 1]).any()) if u else False for u in range(len(book))]
    counts = {"rows": 0, "learned": 0, "falls": 0, "time_outs": 0, "joined": 0}
    for t in range(1, steps + 2 - N_STEP):
        for e in range(ENVS):
            row = replay.unpack(replay.rows[(t - 1) * ENVS + e][None])
            want = expected(book, t, e, limit, falls_by)
            counts["rows"] += 1
            assert (float(row.weight) == 1) == (want is not None), (name, t, e)
            if want is None:
                continue
            counts["learned"] += 1
            obs, action, total, next_obs, discount = want
            assert torch.equal(row.obs[0], obs) and torch.equal(row.next_obs[0], next_obs), (name, t, e)
            assert torch.equal(row.action[0], action), (name, t, e)
            assert math.isclose(float(row.return_n), total, rel_tol=1e-4, abs_tol=1e-4), (name, t, e)
            assert math.isclose(float(row.discount), discount, rel_tol=1e-5), (name, t, e)
    counts["joined"] = int(sum(j.sum() for j in joined[1:]))
    counts["falls"] = int(sum(f.sum() for f in falls[1:]))
    ends = [s["flag"] & ~s["overwritten"] & (s["age"] >= limit - 1) for s in book[1:]]
    counts["time_outs"] = int(sum(e.sum() for e in ends))
    assert int(replay.head) == ENVS * (steps + 1 - N_STEP)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])

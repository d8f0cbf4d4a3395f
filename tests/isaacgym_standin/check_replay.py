"""IsaacGymEnvs' real code on the stand-in: does every transition in replay belong to one episode?

`python check_replay.py TASK STEPS [task.cfg.FIELD=VALUE ...]` prints counts as JSON; what is wrong raises. From the
books (`books.py`) a loop over every single window derives the row that replay must hold.
"""

import isaacgym  # noqa: F401 (before torch)

# isort: split
import json
import math
import sys

import torch
from books import Books, Fates
from isaacgym.simulator import EXISTING

from pql import config
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from tasks.simulators.isaacgym_env import make

ENVS, N_STEP, GAMMA = 16, 3, 0.9
# The inputs of policy and critic as IsaacGymEnvs publishes them for its own learner, where they are dictionaries.
DICTIONARIES = {
    "AllegroHandDextremeManualDR": (
        ("dof_pos_randomized", "object_pose_cam_randomized", "goal_pose_randomized",
         "goal_relative_rot_cam_randomized", "last_actions_randomized"),
        ("dof_pos", "dof_vel", "dof_force", "object_pose", "object_pose_cam_randomized", "object_vels", "goal_pose",
         "goal_relative_rot", "last_actions", "ft_force_torques", "gravity_vec", "ft_states"),
    ),
    "AllegroHandDextremeADR": (
        ("dof_pos_randomized", "object_pose_cam_randomized", "goal_pose", "goal_relative_rot_cam_randomized",
         "last_actions"),
        ("dof_pos", "dof_vel", "dof_force", "object_pose", "object_pose_cam_randomized", "object_vels", "goal_pose",
         "goal_relative_rot", "last_actions", "stochastic_delay_params", "affine_params", "cube_random_params",
         "hand_random_params", "ft_force_torques", "gravity_vec", "ft_states", "rot_dist", "rb_forces"),
    ),
}  # fmt: skip


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
    plain = (("obs",), ("states",) if env.task.num_states else ())
    books = Books(env.task, EXISTING[0], DICTIONARIES.get(name, plain))
    algorithm, _, shared = prepare(cfg, env.spaces)
    replay = make_replay(cfg, algorithm, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    for _ in range(steps):
        actor.step()
    extra = len(books.pages) - steps  # a reset is one step, or two of a task that is reset by `reset_idx`
    assert extra in (1, 2), extra
    pages = books.pages[extra - 1 :]
    first = pages[0]
    assert (first.between | first.before | first.after).all(), "the first reset must begin an episode everywhere"
    fates = Fates(pages, env.max_episode_steps, forced=extra == 1)

    counts = {"rows": 0, "learned": 0, "states": env.critic_obs_dim, "habits": sorted(fates.habits)}
    for t in range(1, steps + 2 - N_STEP):
        for e in range(ENVS):
            at, where = (t - 1) * ENVS + e, (name, t, e)
            row, want = replay.unpack(replay.rows_at(torch.tensor([at]))), fates.row(t, e, N_STEP, GAMMA)
            counts["rows"] += 1
            assert (float(row.weight) == 1) == (want is not None), where
            if want is None:
                continue
            counts["learned"] += 1
            acted_in, action, total, reached, discount = want
            for seen, page in ((row.obs, acted_in), (row.next_obs, reached)):
                assert torch.equal(seen[0], pages[page].obs[e]), where
            if env.critic_obs_dim:
                for seen, page in ((row.critic_obs, acted_in), (row.next_critic_obs, reached)):
                    assert torch.equal(seen[0], pages[page].states[e]), where
            assert torch.equal(row.action[0], action), where
            assert math.isclose(float(row.return_n), total, rel_tol=1e-4, abs_tol=1e-4), where
            assert math.isclose(float(row.discount), discount, rel_tol=1e-5), where
    for fate in ("fall", "time", "lost", "joined"):
        counts[fate] = fates.count(fate)
    assert int(replay.head) == ENVS * (steps + 1 - N_STEP)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])

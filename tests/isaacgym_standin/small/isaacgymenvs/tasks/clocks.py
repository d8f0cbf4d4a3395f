"""Worlds that only count: an observation says which environment, episode and step it is, and so does a reward.

So a stored transition can be checked by what it says itself. `ends_at` is the whole truth about episodes.
"""

import torch

if __package__:
    from isaacgymenvs.tasks.vec_task import VecTask
else:  # loaded as a file, without the package, by tests in whose process torch came first
    from vec_task import VecTask


def reward_of(env, episode, age):
    """For arriving at step `age`: a whole number in [-5, 5]."""
    return (7 * env + 3 * episode + age) % 11 - 5


def ends_at(env, episode, limit):
    """(age at which the episode ends, whether by a fall): early falls, one on the last step, and time-outs."""
    last = limit - 1  # IsaacGymEnvs raises its flag one step before the length that it is given
    fate = (3 * env + 5 * episode) % 7
    early = 1 + (env + 2 * episode) % (last - 2)
    return {0: (early, True), 1: (last, True), 2: (1, True), 3: (early, True)}.get(fate, (last, False))


def felt_again(env, episode):
    """Whether ClockPostReset flags an end on the very step that began this episode."""
    return (env + episode) % 5 == 4


class Clock(VecTask):
    """Falls as `ends_at` says; `env.falls: false` leaves the time limit alone.

    `env.multipleOf` and `env.memoryFor` make it as particular about its number of environments as some tasks are, and
    as short of memory as a GPU.
    """

    num_obs, num_acts, dt = 4, 2, 0.1

    def __init__(self, cfg, *args, **kwargs):
        super().__init__(cfg, *args, **kwargs)
        assert self.num_envs % cfg["env"].get("multipleOf", 1) == 0
        if self.num_envs > cfg["env"].get("memoryFor", self.num_envs):
            raise RuntimeError("CUDA out of memory. Tried to allocate 9.00 GiB")
        self.env = torch.arange(self.num_envs)
        self.episode, self.age = torch.zeros_like(self.env) - 1, torch.zeros_like(self.env)
        self.falls = cfg["env"].get("falls", True)
        self.pulse = torch.zeros(self.num_envs)  # what was done in the step before

    def reset_idx(self, ids):
        self.episode[ids] += 1
        self.age[ids] = 0
        self.progress_buf[ids] = 0
        self.reset_buf[ids] = 0

    def before_physics(self, actions):
        self.pulse = actions.sum(1)

    def physics(self):
        self.age += 1

    def observe(self):
        self.obs_buf[:, 0], self.obs_buf[:, 1], self.obs_buf[:, 2] = self.env, self.episode, self.age
        self.obs_buf[:, 3] = self.pulse

    def judge(self):
        self.rew_buf[:] = reward_of(self.env, self.episode, self.age).float()
        truth = [ends_at(int(e), int(k), self.max_episode_length) for e, k in zip(self.env, self.episode)]
        fallen = torch.tensor([fell and self.falls and int(a) >= at for a, (at, fell) in zip(self.age, truth)])
        self.reset_buf[:] = (fallen | (self.progress_buf >= self.max_episode_length - 1)).long()


class ClockPostReset(Clock):
    """Resets after the next step's physics, as Ant does; now and then the fall is still felt then, as by Anymal."""

    def after_physics(self):
        self.progress_buf += 1
        ids = self.flagged()
        if len(ids):
            self.reset_idx(ids)
        self.observe()
        self.judge()
        felt = (self.age == 0) & felt_again(self.env, self.episode) & self.falls
        self.reset_buf.masked_fill_(felt, 1)


class ClockPreReset(Clock):
    """Resets before the next step's physics, as BallBalance does."""

    def before_physics(self, actions):
        ids = self.flagged()
        if len(ids):
            self.reset_idx(ids)
        super().before_physics(actions)

    def after_physics(self):
        self.progress_buf += 1
        self.observe()
        self.judge()


class ClockSameReset(Clock):
    """Resets within the step and leaves the flag up, as AnymalTerrain does: what is seen is the new episode."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reset_idx(self.env)

    def after_physics(self):
        self.progress_buf += 1
        self.judge()
        ids = self.flagged()
        if len(ids):
            self.reset_idx(ids)
            self.reset_buf[ids] = 1
        self.observe()


class ClockNoReset(Clock):
    """Leaves resets to the learner, as HumanoidAMP does."""

    def after_physics(self):
        self.progress_buf += 1
        self.observe()
        self.judge()

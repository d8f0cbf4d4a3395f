"""Environments that only count, as somebody else might have registered them: with Gymnasium, and as a dm_env.

An observation says which environment, episode and step it is, and what was done; so a transition can be checked by what
it says itself. `ends_at` is the whole truth about episodes. Used as a plugin, in worker processes too.
"""

import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

LIMIT = 12
LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)


def reward_of(who, episode, age):
    """For arriving at step `age`: a whole number in [-5, 5]."""
    return (7 * who + 3 * episode + age) % 11 - 5


def ends_at(who, episode):
    """(age at which the episode ends, whether in a state without a future, whether Gymnasium's flags say truncated)."""
    early = 1 + (who + 2 * episode) % (LIMIT - 2)
    fates = {0: (early, True, False), 1: (LIMIT, True, False), 2: (1, True, False), 3: (early, False, True),
             4: (early, True, True)}  # fmt: skip
    return fates.get((3 * who + 5 * episode) % 7, (LIMIT, False, False))


def done_by(action):
    """What an action in [-1, 1] (2,) does: the sum of what it is mapped to, by hand."""
    return float(2 * action[0]) + float(5 + 5 * action[1])


class Clock(gymnasium.Env):
    """Its first reset's seed is its name; the time limit of 12 is `gymnasium.make`'s."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = spaces.Box(LOW, HIGH)

    def __init__(self, render_mode=None, fault=None, at=3, how="raise", who=None, mark=None):
        self.render_mode, self.fault, self.at, self.how, self.blame, self.mark = render_mode, fault, at, how, who, mark
        self.who, self.episode = None, -1
        self.go_wrong("make")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.who is None:
            self.who = seed
        self.episode, self.age, self.done, self.over = self.episode + 1, 0, 0.0, False
        self.go_wrong("reset", self.episode)
        return self.seen(), {}

    def seen(self):
        return np.array([self.who, self.episode, self.age, self.done], np.float64)

    def step(self, action):
        assert not self.over, "stepped after its end"
        assert self.action_space.contains(np.asarray(action)), action
        self.age, self.done = self.age + 1, float(action.sum())
        self.go_wrong("step", self.age)
        end, fell, cut = ends_at(self.who, self.episode)
        terminated, truncated = bool(self.age == end and fell), bool(self.age == end and cut)
        self.over = terminated or truncated or self.age == LIMIT
        return self.seen(), reward_of(self.who, self.episode, self.age), terminated, truncated, {"age": self.age}

    def go_wrong(self, where, count=0):
        if self.fault != where or count < self.at or self.blame not in (None, self.who):
            return
        if self.how == "raise":
            raise ValueError("three is\ntoo many")
        if self.how == "exit":
            raise SystemExit(7)
        if self.how == "hang":
            time.sleep(3600)
        os.kill(os.getpid(), signal.SIGKILL)

    def render(self):
        return np.full((20, 40, 3), self.who, np.uint8)

    def close(self):
        if self.mark:
            with open(self.mark, "a") as file:
                file.write(f"{self.who}\n")


class DictClock(Clock):
    """The same, told in a dictionary: which environment and episode as `z`, step and deed in `a`, a one-hot in `k`."""

    observation_space = spaces.Dict(
        {
            "z": spaces.Box(-np.inf, np.inf, (2, 1)),
            "k": spaces.Discrete(3),
            "a": spaces.Dict({"age": spaces.Box(0, 99, ()), "deed": spaces.Box(-99, 99, (1,))}),
        }
    )

    def seen(self):
        who, episode, age, done = super().seen().astype(np.float32)
        a = {"deed": np.array([done], np.float32), "age": np.array(age, np.float32)}
        return {"z": np.array([[who], [episode]], np.float32), "k": np.int64(age % 3), "a": a}


class Teller(Clock):
    """Tells of itself in `info`: in every step, now and then, at the end alone, and what is no number."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], {"score": 99.0}  # of no step

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        last = self.age == ends_at(self.who, self.episode)[0]
        info = {**info, "score": np.float32(reward), "is_success": np.bool_(reward > 0), "box": np.array([[reward]])}
        info.update(odd=float(self.age) if self.age % 2 else None, broken=np.nan, name="three", pair=np.zeros(2))
        return obs, reward, terminated, truncated, {**info, "secure": 7 + self.age} if last else info


class Broken(Clock):
    """Its third step is not a number."""

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return (obs * np.nan if self.age == 3 else obs), reward, *rest


class Listed(Clock):
    """Its rewards are arrays."""

    def __init__(self, size=1, render_mode=None):
        super().__init__(render_mode)
        self.size = size

    def step(self, action):
        obs, reward, terminated, *rest = super().step(action)
        return obs, np.full(self.size, reward), np.array([terminated]), *rest


class Slow(Clock):
    """Takes its time to reset, but the first one."""

    def __init__(self, seconds, render_mode=None):
        super().__init__(render_mode)
        self.seconds = seconds

    def reset(self, **how):
        if self.who is not None:
            time.sleep(self.seconds)
        return super().reset(**how)


class Forgetful(SyncVectorEnv):
    """Resets in the same step and doesn't say what the terminal observation was."""

    def __init__(self, num_envs, max_episode_steps):
        super().__init__([lambda: gymnasium.make("Clock-v0")] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)

    def step(self, actions):
        *found, infos = super().step(actions)
        return (*found, {key: value for key, value in infos.items() if "final" not in key})


class Batched(Forgetful):
    """Tells terminal observations as one array of all environments, as those do that step on a GPU."""

    def step(self, actions):
        *found, infos = SyncVectorEnv.step(self, actions)
        last = np.array(found[0])
        for at in np.flatnonzero(infos.get("_final_obs", np.zeros(self.num_envs, bool))):
            last[at] = infos["final_obs"][at]
        return (*found, {"final_obs": last})


class Masked(SyncVectorEnv):
    """Never resets by itself; asked to reset some rows it leaves the others blank."""

    def __init__(self, num_envs, max_episode_steps):
        super().__init__([lambda: gymnasium.make("Clock-v0")] * num_envs, autoreset_mode=AutoresetMode.DISABLED)

    def reset(self, *, seed=None, options=None):
        mask = options["reset_mask"].copy() if options else np.ones(self.num_envs, bool)
        obs, infos = super().reset(seed=seed, options=options)
        return np.where(mask[:, None], obs, np.nan), infos


class Silent(Forgetful):
    """Doesn't say when it resets."""

    def __init__(self, num_envs, max_episode_steps):
        super().__init__(num_envs, max_episode_steps)
        del self.metadata["autoreset_mode"]


class Odd(gymnasium.Env):
    """Of spaces to choose."""

    def __init__(self, obs="vector", action="box"):
        self.observation_space = {
            "vector": spaces.Box(-1, 1, (3,)), "picture": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "grey": spaces.Box(0, 255, (8, 8), np.uint8), "sequence": spaces.Sequence(spaces.Discrete(2)),
            "nested": spaces.Dict(camera=spaces.Box(0, 255, (8, 8, 3), np.uint8), x=spaces.Box(0, 1, (1,))),
        }[obs]  # fmt: skip
        self.action_space = {
            "box": spaces.Box(-1, 1, (2,)), "discrete": spaces.Discrete(4), "unbounded": spaces.Box(-np.inf, 1, (2,)),
            "huge": spaces.Box(-3e38, 3e38, (2,)), "whole": spaces.Box(-3, 3, (2,), np.int64),
        }[action]  # fmt: skip


REGISTERED = {
    "Clock-v0": Clock, "DictClock-v0": DictClock, "Broken-v0": Broken, "Slow-v0": Slow, "Odd-v0": Odd,
    "Teller-v0": Teller, "Listed-v0": Listed,
    "Old/Clock-v1": Clock, "Old/Clock-v2": Clock, "Endless-v0": Clock,
}  # fmt: skip
if "Clock-v0" not in gymnasium.registry:  # a test may import this under another name too
    for _name, _class in REGISTERED.items():
        gymnasium.register(_name, _class, max_episode_steps=None if _name == "Endless-v0" else LIMIT)
    for _class in (Forgetful, Batched, Masked, Silent):
        gymnasium.register(f"{_class.__name__}-v0", vector_entry_point=_class, max_episode_steps=LIMIT)


# --- dm_env -----------------------------------------------------------------------------------------------------


def dm_clock(seed, own_limit=True, soft=False, restarts=False, action="bounded", obs="dict", **fault):
    """The same clock as a `dm_env.Environment`. Where both flags are up in Gymnasium's, its discount is 0.5 or 0.

    `restarts`: it begins its third episode unasked, in the middle of the second.
    """
    import dm_env
    from dm_env import specs

    class DmClock(dm_env.Environment):
        def __init__(self):
            self.clock, self.over = Clock(**fault), True

        def reset(self):
            self.over = False
            self.clock.reset(seed=seed)
            return dm_env.restart(self.seen())

        def step(self, action):
            assert not self.over, "stepped after its end, where it would begin anew and ignore the action"
            if restarts and self.clock.episode == 1 and self.clock.age == 1:
                return self.reset()
            _, reward, terminated, truncated, _ = self.clock.step(np.asarray(action, np.float32))
            self.over = terminated or truncated or (own_limit and self.clock.age == LIMIT)
            if terminated:
                discount = 0.5 if soft else 0.0
                return dm_env.TimeStep(dm_env.StepType.LAST, reward, discount, self.seen())
            make = dm_env.truncation if self.over else dm_env.transition
            return make(reward, self.seen())

        def seen(self):
            who, episode, age, done = self.clock.seen()
            if obs == "array":
                return self.clock.seen()
            # in the order of the spec, whatever their own
            return {"done": np.array([[done]]), "who": np.array([who, episode]), "age": np.float64(age)}

        def observation_spec(self):
            if obs == "array":
                return specs.Array((4,), np.float64)
            if obs == "pixels":
                return {"pixels": specs.BoundedArray((8, 8, 3), np.uint8, 0, 255)}
            shapes = {"who": (2,), "age": (), "done": (1, 1)}
            return {name: specs.Array(shape, np.float64, name) for name, shape in shapes.items()}

        def action_spec(self):
            if action == "unbounded":
                return specs.BoundedArray((2,), np.float64, -np.inf, np.inf)
            if action == "array":
                return specs.Array((2,), np.float64)
            return specs.BoundedArray((2,), np.float64, LOW, HIGH)

    return DmClock()

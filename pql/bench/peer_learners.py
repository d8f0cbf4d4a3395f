"""The learners that `pql.bench.peers` compares: settings, adapters to our environments, the clock they are watched by.

Each `train_*` takes (options, seed, cores, recorder), trains until the recorder's time is up, and returns two
things: a function from a copy of its policy to how that copy acts, and its settings.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

# What the peers' users run, where this task has known good settings; rewards are scaled as each learner likes them.
PPO = {
    "num_envs": 2048,
    "reward_scale": 0.01,
    "runner": {
        "num_steps_per_env": 16,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "save_interval": 10**9,
        "actor": {
            "class_name": "MLPModel",
            "hidden_dims": [256, 128, 64],
            "activation": "elu",
            "obs_normalization": True,
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"},
        },
        "critic": {
            "class_name": "MLPModel",
            "hidden_dims": [256, 128, 64],
            "activation": "elu",
            "obs_normalization": True,
        },
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": 4,
            "num_mini_batches": 4,
            "learning_rate": 3e-4,
            "schedule": "adaptive",
            "desired_kl": 0.01,
            "gamma": 0.99,
            "lam": 0.95,
            "clip_param": 0.2,
            "entropy_coef": 0.0,
            "value_loss_coef": 1.0,
            "max_grad_norm": 1.0,
            "rnd_cfg": None,
            "symmetry_cfg": None,
        },
    },
}
SAC = {
    "num_envs": 256,
    "reward_scale": 0.05,
    "learner": {
        "learning_rate": 7.3e-4,  # this and tau: chosen for locomotion, untuned here
        "tau": 0.02,
        "batch_size": 256,
        "gradient_steps": 8,
        "gamma": 0.99,
        "buffer_size": 1_000_000,
        "learning_starts": 8192,
        "policy_kwargs": {"net_arch": [256, 256]},
    },
}


class TimeIsUp(Exception):
    """Raised from an environment's step: the way out of a learner's loop that knows no other."""


class Recorder:
    """The clock of a cell, and the copies of its policy that are to be evaluated."""

    def __init__(self, seconds: float, every: float):
        self.seconds, self.every = seconds, every
        self.copies: list[tuple[float, int, Any]] = []  # seconds, env steps, what `take` gave
        self.due = 0.0

    def visit(self, now: float, env_steps: int, take: Callable[[], Any]) -> None:
        """Keep a copy if one is due at `now` seconds: at the start, every `every` seconds, and once at the end."""
        if now >= self.due:
            self.copies.append((now, env_steps, take()))
            following = (now // self.every + 1) * self.every
            self.due = math.inf if now >= self.seconds else min(following, self.seconds)


class Watched:
    """An environment for a learner that runs its own loop: counts steps, watches the clock, scales rewards."""

    def __init__(self, env: Any, recorder: Recorder, reward_scale: float):
        self.env, self.recorder, self.reward_scale = env, recorder, reward_scale
        self.env_steps = 0
        self.started: float | None = None
        self.take: Callable[[], Any] = lambda: None

    def step(self, action: Any) -> Any:
        """As `VectorEnv.step`, with scaled rewards. Raises TimeIsUp when the budget is spent."""
        if self.started is None:
            self.started = time.monotonic()
        now = time.monotonic() - self.started
        self.recorder.visit(now, self.env_steps, self.take)
        if now >= self.recorder.seconds:
            raise TimeIsUp
        step = self.env.step(action)
        self.env_steps += self.env.num_envs
        return step._replace(reward=step.reward * self.reward_scale)


def _sac_as_the_peer() -> str:
    """Words for our SAC that give it the peer's settings: environments, updates, rates, networks, warm-up, scales."""
    theirs, n = SAC["learner"], SAC["num_envs"]
    words = {
        "num_envs": n, "algo.critic_updates_per_step": theirs["gradient_steps"], "algo.tau": theirs["tau"],
        "algo.batch_size": theirs["batch_size"], "algo.gamma": theirs["gamma"], "algo.normalize_obs": "true",
        "algo.replay_size": theirs["buffer_size"], "algo.warmup_steps": theirs["learning_starts"] // n,
        "algo.hidden": theirs["policy_kwargs"]["net_arch"], "algo.reward_scale": SAC["reward_scale"],
        **{f"algo.{name}_lr": theirs["learning_rate"] for name in ("critic", "actor", "temperature")},
    }  # fmt: skip
    return " ".join(["algo=sac", *(f"{name}={value}".replace(" ", "") for name, value in words.items())])


def train_pql(options: Any, seed: int, cores: int, recorder: Recorder) -> tuple[Callable, dict]:
    """PQL with the configuration that scripts/train.py would use, and the overrides of `pql=`."""
    return _train_ours(options.pql, options, seed, recorder)


def train_flash_sac(options: Any, seed: int, cores: int, recorder: Recorder) -> tuple[Callable, dict]:
    """flash_sac with the configuration that scripts/train.py would use."""
    return _train_ours("algo=flash_sac", options, seed, recorder)


def train_our_sac(options: Any, seed: int, cores: int, recorder: Recorder) -> tuple[Callable, dict]:
    """Our SAC with the settings of the peer's."""
    return _train_ours(_sac_as_the_peer(), options, seed, recorder)


def _train_ours(words: str, options: Any, seed: int, recorder: Recorder) -> tuple[Callable, dict]:
    from pql import config
    from pql.roles.build import prepare
    from pql.run.monitor import Monitor
    from pql.runtime import parallel, sync

    with tempfile.TemporaryDirectory() as folder:
        fixed = [
            f"task={options.task}", f"seed={seed}", f"run_dir={folder}/run", f"max_time={options.seconds}",
            "max_env_steps=1000000000", "eval_interval=0", "checkpoint_interval=0", "checkpoint_replay=false",
            "device=cpu", "sim=mujoco",
        ]  # fmt: skip
        cfg = config.load([*fixed, *words.split()])
        env = config.make_env(cfg, options.episodes, 0)
        config.save(cfg, Path(cfg.run_dir) / "config.yaml")

        class Watch(Monitor):
            def tick(self) -> None:
                super().tick()
                recorder.visit(self.wall_time, self.env_steps, self.take)

            def take(self) -> tuple:
                self.shared.average.read(self.weights.data)
                self.shared.normalizer.read(self.normalizer.state)
                return self.weights.data.clone(), self.normalizer.state.clone()

        parts = prepare(cfg, env.spaces)
        monitor = Watch(cfg, parts, env, None, blocking_evaluation=False)
        (sync if cfg.runtime == "sync" else parallel).run(cfg, monitor, None)
        monitor.writer.close()

    def act_with(state: tuple) -> Callable:
        monitor.weights.data.copy_(state[0])
        monitor.normalizer.state.copy_(state[1])
        monitor.normalizer.refresh()
        return lambda obs: parts.algorithm.act(monitor.policy, monitor.normalizer(obs))

    settings = {"num_envs": cfg.num_envs, "runtime": cfg.runtime, "algo": dataclasses.asdict(cfg.algo)}
    settings["utd_measured"] = int(parts.shared.critic_updates) / max(1, monitor.env_steps)
    return act_with, settings


def train_ppo(options: Any, seed: int, cores: int, recorder: Recorder) -> tuple[Callable, dict]:
    """PPO of rsl_rl, driven by its own runner."""
    import torch
    from rsl_rl.env import VecEnv
    from rsl_rl.runners import OnPolicyRunner
    from tensordict import TensorDict

    import tasks

    env = tasks.make(options.task, PPO["num_envs"], sim="mujoco", seed=seed, threads=cores)
    watched = Watched(env, recorder, PPO["reward_scale"])

    class Adapter(VecEnv):
        num_envs, num_actions, device, cfg = env.num_envs, env.action_dim, env.device, {}
        max_episode_length = env.max_episode_steps
        episode_length_buf = torch.zeros(env.num_envs, dtype=torch.long)

        def __init__(self) -> None:
            self.obs = env.reset().clone()

        def get_observations(self) -> TensorDict:
            return TensorDict({"policy": self.obs}, batch_size=self.num_envs)

        def step(self, actions: torch.Tensor) -> tuple:
            step = watched.step(actions)
            self.obs = step.obs.clone()  # kept beyond the next step
            done = (step.terminated | step.truncated).long()
            return self.get_observations(), step.reward, done, {"time_outs": step.truncated.float()}

    torch.manual_seed(seed)
    runner = OnPolicyRunner(Adapter(), copy.deepcopy(PPO["runner"]), log_dir=None, device="cpu")
    policy = runner.alg.get_policy()
    watched.take = lambda: copy.deepcopy(policy.state_dict())
    _until_time_is_up(lambda: runner.learn(10**9))
    policy.eval()

    def act_with(state: dict) -> Callable:
        with torch.inference_mode():  # in which the runner made the normaliser's tensors
            policy.load_state_dict(state)
        return lambda obs: policy(TensorDict({"policy": obs}, batch_size=len(obs)))

    return act_with, PPO


def train_sac(options: Any, seed: int, cores: int, recorder: Recorder) -> tuple[Callable, dict]:
    """SAC of stable-baselines3, with its VecNormalize for observations."""
    import numpy as np
    import torch
    from gymnasium import spaces
    from stable_baselines3 import SAC as Learner
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

    import tasks

    env = tasks.make(options.task, SAC["num_envs"], sim="mujoco", seed=seed, threads=cores)
    watched = Watched(env, recorder, SAC["reward_scale"])

    class Adapter(VecEnv):
        def __init__(self) -> None:
            obs = spaces.Box(-np.inf, np.inf, (env.obs_dim,), np.float32)
            super().__init__(env.num_envs, obs, spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32))

        def reset(self) -> np.ndarray:
            return env.reset().numpy().copy()

        def step_async(self, actions: np.ndarray) -> None:
            self.actions = torch.from_numpy(actions)

        def step_wait(self) -> tuple:
            step = watched.step(self.actions)
            done = (step.terminated | step.truncated).numpy()
            infos: list[dict] = [{} for _ in range(self.num_envs)]
            for i in np.flatnonzero(done):
                infos[i]["terminal_observation"] = step.next_obs[i].numpy().copy()
                infos[i]["TimeLimit.truncated"] = bool(step.truncated[i])
            return step.obs.numpy().copy(), step.reward.numpy(), done, infos

        def get_attr(self, attr_name: str, indices: Any = None) -> list:
            if attr_name != "render_mode":
                raise AttributeError(attr_name)
            return [None] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise AttributeError(attr_name)

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list:
            raise AttributeError(method_name)

        def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list:
            return [False] * self.num_envs

        def close(self) -> None:
            env.close()

    normalized = VecNormalize(Adapter(), norm_reward=False)
    settings = copy.deepcopy(SAC["learner"])
    model = Learner("MlpPolicy", normalized, seed=seed, device="cpu", **settings)
    rms = normalized.obs_rms
    watched.take = lambda: (copy.deepcopy(model.actor.state_dict()), rms.mean.copy(), rms.var.copy())
    _until_time_is_up(lambda: model.learn(10**9))

    def act_with(state: tuple) -> Callable:
        model.actor.load_state_dict(state[0])
        mean, scale = torch.from_numpy(state[1]), torch.from_numpy(state[2] + normalized.epsilon).rsqrt()
        bound = normalized.clip_obs
        return lambda obs: model.actor(((obs - mean) * scale).clamp(-bound, bound).float(), deterministic=True)

    return act_with, SAC


def _until_time_is_up(learn: Callable[[], Any]) -> None:
    try:
        learn()
    except TimeIsUp:
        return
    raise RuntimeError("the learner stopped before its time was up")


TRAIN = {
    "pql": train_pql,
    "flash_sac": train_flash_sac,
    "our_sac": train_our_sac,
    "ppo": train_ppo,
    "sac": train_sac,
}

"""Rules that hold between values: what makes a configuration one that can run."""

from __future__ import annotations

import math

from omegaconf import OmegaConf

from pql.config.schema import IDENTITY, Config, known_keys
from pql.errors import UserError
from pql.memory.pacing import replay_guard


def validate(cfg: Config) -> None:
    a, values = cfg.algo, OmegaConf.structured(cfg)

    def require(ok: bool, name: str, rule: str) -> None:
        if not ok:
            raise UserError(f"{name}={OmegaConf.select(values, name)}: must be {rule}")

    for name in known_keys(a.name):
        value = OmegaConf.select(values, name)
        require(not isinstance(value, float) or math.isfinite(value), name, "a finite number")
    require(cfg.runtime in ("parallel", "sync"), "runtime", "parallel, sync or auto")
    require(cfg.data is None or cfg.runtime == "sync", "runtime", "sync with data=: there is no actor to run beside")
    require(cfg.data is not None or cfg.passes is None, "passes", "left out without data=: algo.utd sets the ratio")
    require(cfg.passes is None or cfg.passes > 0, "passes", "greater than 0")
    require(cfg.data is None or not cfg.profile, "profile", "false with data=")
    require(cfg.matmul_precision in ("highest", "high", "medium"), "matmul_precision", "highest, high or medium")
    for name in ("num_envs", "max_env_steps", "eval_episodes", "log_interval", "lead_steps"):
        require(getattr(cfg, name) >= 1, name, "at least 1")
    for name in ("eval_interval", "checkpoint_interval", "seed"):
        require(getattr(cfg, name) >= 0, name, "0 or more")
    a.check(lambda ok, name, rule: require(ok, f"algo.{name}", rule))
    require(cfg.max_time is None or cfg.max_time > 0, "max_time", "greater than 0")
    require(cfg.heartbeat_timeout > 0, "heartbeat_timeout", "greater than 0")
    for name in ("actor", "v_learner", "p_learner"):
        value = getattr(cfg.threads, name)
        require(value is None or value >= 1, f"threads.{name}", "at least 1")
    require(cfg.sim.step_timeout > 0, "sim.step_timeout", "greater than 0")
    for name in ("threads", "contacts_per_env"):
        value = getattr(cfg.sim, name)
        require(value is None or value >= 1, f"sim.{name}", "at least 1")
    here = a.replay_device in (None, "cpu", cfg.device)
    require(here, "algo.replay_device", f"cpu, or null for the run's own device ({cfg.device})")
    if a.batch_size > a.replay_size:
        raise UserError(
            f"algo.batch_size={a.batch_size} is larger than algo.replay_size={a.replay_size}: "
            "shrink the batch or enlarge the replay"
        )
    guard = replay_guard(cfg)
    if a.replay_size // cfg.num_envs * cfg.num_envs < 2 * guard:
        raise UserError(
            f"algo.replay_size={a.replay_size} is too small for num_envs={cfg.num_envs} at this update ratio: "
            f"needs at least {2 * guard}"
        )


def check_identity(cfg: Config, saved: Config) -> None:
    new, old = OmegaConf.structured(cfg), OmegaConf.structured(saved)
    mine = {name for name, about in known_keys(saved.algo.name).items() if about.get("identity")}
    if cfg.data is not None:  # passes may be added
        mine.discard("algo.critic_updates_per_step")
    for name in ("algo.name", *IDENTITY, *sorted(mine)):
        a, b = (OmegaConf.select(values, name, throw_on_missing=False) for values in (new, old))
        if a != b:
            raise UserError(
                f"run_dir={cfg.run_dir} was trained with {name}={b}, not {a}: "
                "resume it with the same value, or name another run_dir (init_from=<this run> begins with its networks)"
            )
    kinds = [one.device.partition(":")[0] for one in (cfg, saved)]
    if kinds[0] != kinds[1]:  # random states and the ring's guard are of one kind
        raise UserError(
            f"run_dir={cfg.run_dir} was trained with device={saved.device}, not {cfg.device}: resume it there, or name "
            "another run_dir (init_from=<this run> begins with its networks)"
        )

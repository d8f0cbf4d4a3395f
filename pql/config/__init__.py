"""The typed configuration, and `load`: groups in cfg/ plus `key=value` overrides -> one resolved `Config`."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pql.config.devices import device_for, resolve_device
from pql.errors import UserError, nearest

CFG_DIR = Path(__file__).resolve().parents[2] / "cfg"


def key(default: Any, meaning: str) -> Any:
    """A configuration key: its default and what --help says of it."""
    factory = (lambda: list(default)) if isinstance(default, list) else None
    if factory:
        return field(default_factory=factory, metadata={"help": meaning})
    return field(default=default, metadata={"help": meaning})


@dataclass
class TaskConfig:
    name: str = key("Ant", "name under which the task is registered")
    options: Dict[str, Any] = field(default_factory=dict, metadata={"help": "arguments of the task's constructor"})
    cfg: Dict[str, Any] = field(
        default_factory=dict, metadata={"help": "sim=isaacgym: fields of the task's own file, task.cfg.env.<field>=..."}
    )


@dataclass
class SimConfig:
    name: str = key("auto", "auto, isaacgym, mujoco_warp, mujoco")
    threads: Optional[int] = key(None, "threads that step the physics; null: a fair share of the cores")
    contacts_per_env: Optional[int] = key(None, "mujoco_warp: contacts to hold memory for, per environment; null: 24")


@dataclass
class AlgoConfig:
    name: str = key("pql", "pql, pql_d")
    batch_size: int = key(8192, "transitions per critic and per policy update")
    critic_lr: float = key(5e-4, "AdamW step size of the critics")
    actor_lr: float = key(5e-4, "AdamW step size of the policy")
    weight_decay: float = key(0.01, "AdamW weight decay")
    max_grad_norm: float = key(0.5, "gradients are clipped to this norm")
    critic_updates_per_step: Optional[float] = key(8.0, "critic updates per vector step, fractions allowed")
    utd: Optional[float] = key(None, "critic updates per transition; give this or critic_updates_per_step")
    critic_updates_per_policy_update: int = key(2, "critic updates per policy update")
    n_step: int = key(3, "steps summed before bootstrapping")
    gamma: float = key(0.99, "discount per step")
    tau: float = key(0.05, "share of the new critic in the soft target update")
    hidden: List[int] = key([512, 256, 128], "widths of the hidden layers, policy and critics")
    activation: str = key("elu", "relu, elu, silu")
    layer_norm: bool = key(True, "normalise each hidden layer")
    replay_size: int = key(5_000_000, "transitions kept")
    warmup_steps: int = key(32, "vector steps of uniform random actions before learning")
    reward_scale: float = key(1.0, "rewards are multiplied by this before learning (never in reported returns)")
    noise_low: float = key(0.05, "exploration: smallest standard deviation over the environments")
    noise_high: float = key(0.8, "exploration: largest standard deviation over the environments")
    target_noise: float = key(0.8, "target policy smoothing: standard deviation")
    target_noise_clip: float = key(0.2, "target policy smoothing: bound")
    policy_average: float = key(0.001, "least share of the newest policy in the averaged, deployed one; 1: no average")
    normalize_obs: bool = key(True, "normalise observations by their running moments")
    v_device: Optional[str] = key(None, "the V-learner's own device, cuda:1 say; null: that of the run")
    p_device: Optional[str] = key(None, "the P-learner's own device; null: that of the run")
    num_atoms: int = key(51, "pql_d: atoms of the return distribution")
    v_min: float = key(-10.0, "pql_d: smallest scaled return represented")
    v_max: float = key(10.0, "pql_d: largest scaled return represented")


@dataclass
class ThreadsConfig:
    actor: Optional[int] = key(None, "torch threads of the actor; null: a fair share of the cores")
    v_learner: Optional[int] = key(None, "torch threads of the V-learner; null: a fair share of the cores, 1 if sync")
    p_learner: Optional[int] = key(None, "torch threads of the P-learner; null: a fair share of the cores")


@dataclass
class Config:
    task: TaskConfig = field(default_factory=TaskConfig)
    algo: AlgoConfig = field(default_factory=AlgoConfig)
    sim: SimConfig = field(default_factory=SimConfig)
    threads: ThreadsConfig = field(default_factory=ThreadsConfig)
    preset: str = key("auto", "sizes: cpu, gpu; auto: by the device")
    device: str = key("auto", "auto, cpu, cuda, cuda:1, ...")
    runtime: str = key("parallel", "parallel: three processes; sync: one process, deterministic")
    num_envs: int = key(4096, "environments stepped together")
    seed: int = key(0, "seeds networks, simulation, exploration and sampling")
    run_dir: Optional[str] = key(None, "where everything is written; null: runs/<task>_<algo>_s<seed>_<time>")
    resume: bool = key(False, "continue run_dir from its last good checkpoint, or start it")
    max_env_steps: int = key(100_000_000, "stop after this many transitions")
    max_time: Optional[float] = key(None, "stop after this many seconds of training, earlier sessions included")
    eval_interval: int = key(5_000_000, "transitions between evaluations; 0: only at the end")
    eval_episodes: int = key(32, "episodes per evaluation, side by side, without noise")
    checkpoint_interval: int = key(20_000_000, "transitions between checkpoints; 0: only at the end")
    checkpoint_replay: bool = key(True, "checkpoints hold the replay ring")
    log_interval: int = key(500_000, "transitions between lines of metrics.jsonl")
    video: bool = key(True, "end with a video of the learned policy")
    wandb: bool = key(False, "also log to Weights & Biases (pip install wandb)")
    compile: bool = key(False, "fuse the losses with torch.compile: seconds to start, then faster updates")
    matmul_precision: str = key(
        "highest", "of the networks' products: highest: float32; high, medium: TF32, bfloat16 where that is faster"
    )
    autocast: bool = key(False, "networks in bfloat16, with weights, optimizer and losses in float32")
    cuda_graphs: bool = key(True, "on a GPU, record each learner's update as a CUDA graph")
    lead_steps: int = key(2, "vector steps that the actor may be ahead of the V-learner (parallel)")
    heartbeat_timeout: float = key(120.0, "seconds without a sign of life after which a process counts as hung")
    plugins: List[str] = key([], "Python files or modules imported first: where custom tasks register")


# A resumed run must agree with its checkpoint on these; everything else may be changed on the way.
IDENTITY = (
    "task.name",
    "task.options",
    "task.cfg",
    "algo.name",
    "num_envs",
    "algo.n_step",
    "algo.gamma",
    "algo.hidden",
    "algo.activation",
    "algo.layer_norm",
    "algo.replay_size",
    "algo.reward_scale",
    "algo.num_atoms",
    "algo.v_min",
    "algo.v_max",
    "algo.critic_updates_per_step",
    "algo.critic_updates_per_policy_update",
    "lead_steps",
)
GROUPS = ("task", "algo", "sim", "preset")
DEFAULTS = {"task": "Ant", "sim": "auto"}  # as cfg/config.yaml has them
FREE = ("task.options.", "task.cfg.")  # the task says which keys there are


def known_keys(schema: type = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of the schema -> its dataclass field."""
    keys: dict[str, Any] = {}
    for f in fields(schema):
        default = f.default_factory() if callable(f.default_factory) else f.default
        if is_dataclass(default):
            keys.update(known_keys(type(default), f"{prefix}{f.name}."))
        else:
            keys[prefix + f.name] = f
    return keys


def choices(group: str) -> list[str]:
    """Names that `group=` accepts."""
    return sorted(p.stem for p in (CFG_DIR / group).glob("*.yaml") if p.stem != "custom")


def load(overrides: list[str]) -> Config:
    """Compose, type-check and resolve a configuration.

    Args:
        overrides: `key=value` strings, Hydra's grammar; `task=`, `algo=`, `sim=`, `preset=` choose files in cfg/.
    Raises:
        UserError: an unknown key (names the nearest), a wrong type, a value out of range, keys that exclude
            each other, a run directory that cannot be started or resumed as asked.
    """
    given = _parse(overrides)
    if "algo.utd" in given and "algo.critic_updates_per_step" in given:
        raise UserError("algo.utd and algo.critic_updates_per_step both set the same ratio: give one of them")
    saved = _saved_config(given)
    import_plugins(_plugins(given) if "plugins" in given or saved is None else saved.plugins)
    _check_choices(given)
    cfg = _compose(overrides, given) if saved is None else _override(saved, given)
    cfg = _typed(cfg)
    _resolve(cfg, given)
    _validate(cfg)
    if saved is not None:
        _check_identity(cfg, _typed(saved))
    return cfg


def save(cfg: Config, path: Path) -> None:
    """Write the resolved configuration as YAML, atomically."""
    from pql.runtime.checkpoint import write_atomically

    write_atomically(path, OmegaConf.to_yaml(OmegaConf.structured(cfg)))


def read(path: Path) -> Config:
    """The configuration a run was started with. Raises UserError where `path` is no configuration of ours."""
    try:
        cfg = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return _typed(cfg)


def overrides_help() -> str:
    """What --help prints: tasks, algorithms, every key with its default and meaning."""
    import tasks

    cfg = OmegaConf.structured(_typed(_compose([], {})))
    lines = [
        "usage: scripts/train.py [key=value ...]",
        "",
        f"tasks       {', '.join(tasks.list())}",
        f"algorithms  {', '.join(choices('algo'))}",
        f"simulators  {', '.join(choices('sim'))}",
        "",
        "Defaults are those of the CPU preset with Ant; preset=gpu shows in the run's config.yaml.",
        "",
    ]
    for name, f in known_keys().items():
        value = OmegaConf.select(cfg, name)
        value = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"  {name + '=' + value:<42} {f.metadata.get('help', '')}")
    return "\n".join(lines)


def _parse(overrides: list[str]) -> dict[str, Any]:
    """Known keys and their values, by Hydra's grammar: quotes are taken off, null is None, [a,b] a list."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    known = known_keys()
    parser = OverridesParser.create()
    given = {}
    for text in overrides:
        name, equals, value = text.lstrip("+").partition("=")
        if not equals or not name:
            raise UserError(f"'{text}' is not of the form key=value; --help lists the keys")
        if name not in known and name not in GROUPS and not name.startswith(FREE):
            raise UserError(f"unknown key '{name}'{nearest(name, [*known, *GROUPS])}; --help lists them all")
        if not value.strip():
            raise UserError(f"'{text}' gives no value; write {name}=null for none, or leave it out")
        try:
            override = parser.parse_override(f"{name}={value}")
        except HydraException as error:
            raise UserError(f"{text}: cannot be read ({_first_line(error)}); quote it: {name}=\"'...'\"") from error
        if override.is_sweep_override():
            raise UserError(f"{text}: one value, please; scripts/sweep.py takes several")
        given[name] = override.value()
    return given


def _check_choices(given: dict[str, Any]) -> None:
    """What `algo=`, `sim=` and `preset=` may be: files in cfg/, and what is registered by now."""
    from pql import algorithms
    from tasks.simulators.base import BACKENDS

    allowed = {"algo": algorithms.names(), "sim": list(BACKENDS), "preset": [*choices("preset"), "auto"]}
    for group, extra in allowed.items():
        known = sorted({*choices(group), *extra})
        if group in given and given[group] not in known:
            hint = nearest(str(given[group]), known)
            raise UserError(f"unknown {group} '{given[group]}'{hint}; there are: {', '.join(known)}")


def _plugins(given: dict[str, Any]) -> list[str]:
    plugins = given.get("plugins") or []
    if not isinstance(plugins, list):
        raise UserError(f"plugins={plugins}: must be a list: plugins=[{plugins}]")
    return [str(plugin) for plugin in plugins]


def import_plugins(plugins: list[str]) -> None:
    """Import each file or module, so that the tasks and algorithms in it are registered."""
    import importlib
    import importlib.util
    import sys

    for plugin in plugins:
        path = Path(plugin).resolve()
        name = f"plugin:{path}" if path.suffix == ".py" else plugin
        if name in sys.modules:
            continue
        try:
            if path.suffix == ".py":
                spec = importlib.util.spec_from_file_location(name, path)
                module = sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
            else:
                importlib.import_module(plugin)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            sys.modules.pop(name, None)  # or a second load would pass over it
            raise UserError(f"plugin '{plugin}' cannot be imported: {error}") from error
        except BaseException:
            sys.modules.pop(name, None)
            raise


def _saved_config(given: dict[str, Any]) -> DictConfig | None:
    run_dir = given.get("run_dir")
    resume = given.get("resume", False) is True
    if run_dir is None or not Path(str(run_dir)).exists():
        return None
    run_dir = str(run_dir)
    path = Path(run_dir)
    if not path.is_dir():
        raise UserError(f"run_dir={run_dir} is a file: name a folder")
    if all(p.suffix == ".log" for p in path.iterdir()):  # a launcher may have begun to log there
        return None
    if not resume:
        raise UserError(f"run_dir={run_dir} exists: continue it with resume=true, or name another")
    if not (path / "config.yaml").exists():
        raise UserError(f"run_dir={run_dir} holds no config.yaml, so there is no run to resume: name another folder")
    return OmegaConf.structured(read(path / "config.yaml"))


def _task_override(given: dict[str, Any]) -> list[str]:
    """`task=X` names a file in cfg/task or any registered task."""
    import tasks

    if "task" not in given:
        return []
    name = str(given["task"])
    if name in choices("task"):
        return [f"task={name}"]
    # What IsaacGymEnvs has, or why it is not there, is best said by the simulator itself.
    if given.get("sim") != "isaacgym" and name not in {*tasks.list(), *tasks.brought()}:
        known = sorted({*choices("task"), *tasks.list(), *tasks.brought()})
        raise UserError(f"unknown task '{name}'{nearest(name, known)}; there are: {', '.join(known)}")
    return ["task=custom", f"task.name={name}"]


def _group_override(group: str, like: str, given: dict[str, Any]) -> list[str]:
    """`<group>=X` names a file in cfg/<group>, or what a plugin registered: that takes the settings of `like`."""
    if group not in given or given[group] in choices(group):
        return [f"{group}={given[group]}"] if group in given else []
    return [f"{group}={like}", f"{group}.name={given[group]}"]


def _compose(overrides: list[str], given: dict[str, Any]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    ConfigStore.instance().store(name="schema", node=Config)

    preset = given.get("preset", "auto")
    if preset == "auto":
        task, sim = (str(given.get(f"{group}.name", given.get(group, new))) for group, new in DEFAULTS.items())
        preset = "gpu" if device_for(str(given.get("device", "auto")), task, sim).type == "cuda" else "cpu"
    rest = [o for o in overrides if o.lstrip("+").partition("=")[0] not in ("task", "algo", "sim", "preset")]
    rest = ["+" + o.lstrip("+") if o.lstrip("+").startswith(FREE) else o.lstrip("+") for o in rest]
    chosen = [*_task_override(given), *_group_override("algo", "pql", given), *_group_override("sim", "auto", given)]
    chosen += [f"preset={preset}"]
    try:
        with initialize_config_dir(str(CFG_DIR), version_base="1.3"):
            return compose("config", overrides=[*chosen, *rest])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{_first_line(error)} (in: {' '.join(overrides)})") from error


def _override(saved: DictConfig, given: dict[str, Any]) -> DictConfig:
    """The saved configuration with what this command line says on top; a group's choice stands for its name."""
    try:
        cfg = OmegaConf.create(OmegaConf.to_container(saved))
        for name, value in given.items():
            target = f"{name}.name" if name in ("task", "algo", "sim") else name
            if name == "preset":
                continue
            OmegaConf.update(cfg, target, value)
        if "algo.utd" in given:
            cfg.algo.critic_updates_per_step = None
        elif "algo.critic_updates_per_step" in given:
            cfg.algo.utd = None
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(_first_line(error)) from error
    return cfg


def _typed(cfg: DictConfig) -> Config:
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), cfg))
    except OmegaConfBaseException as error:
        name = getattr(error, "full_key", None)
        raise UserError(f"{name + ': ' if name else ''}{_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _resolve(cfg: Config, given: dict[str, Any]) -> None:
    cfg.device = str(device_for(cfg.device, cfg.task.name, cfg.sim.name))
    # a run is resumed, played and exported from other folders than it was started in
    cfg.plugins = [str(Path(p).resolve()) if p.endswith(".py") else p for p in cfg.plugins]
    a = cfg.algo
    for name in ("v_device", "p_device"):
        if getattr(a, name) is not None:
            setattr(a, name, str(resolve_device(getattr(a, name), f"algo.{name}")))
    if "algo.utd" in given:
        a.critic_updates_per_step = None
    if a.critic_updates_per_step is None:
        if a.utd is None:
            raise UserError("give algo.critic_updates_per_step or algo.utd")
        a.critic_updates_per_step = a.utd * cfg.num_envs
    a.utd = a.critic_updates_per_step / max(1, cfg.num_envs)
    if cfg.run_dir is None:
        cfg.run_dir = f"runs/{cfg.task.name}_{a.name}_s{cfg.seed}_{time.strftime('%Y%m%d-%H%M%S')}"


def _validate(cfg: Config) -> None:
    a, values = cfg.algo, OmegaConf.structured(cfg)

    def require(ok: bool, name: str, rule: str) -> None:
        if not ok:
            raise UserError(f"{name}={OmegaConf.select(values, name)}: must be {rule}")

    for name in known_keys():
        value = OmegaConf.select(values, name)
        require(not isinstance(value, float) or math.isfinite(value), name, "a finite number")
    require(cfg.runtime in ("parallel", "sync"), "runtime", "parallel or sync")
    require(cfg.matmul_precision in ("highest", "high", "medium"), "matmul_precision", "highest, high or medium")
    require(a.activation in ("relu", "elu", "silu"), "algo.activation", "relu, elu or silu")
    for name in ("num_envs", "max_env_steps", "eval_episodes", "log_interval", "lead_steps"):
        require(getattr(cfg, name) >= 1, name, "at least 1")
    for name in ("eval_interval", "checkpoint_interval", "seed"):
        require(getattr(cfg, name) >= 0, name, "0 or more")
    for name in ("batch_size", "n_step", "critic_updates_per_policy_update", "replay_size"):
        require(getattr(a, name) >= 1, f"algo.{name}", "at least 1")
    for name in ("critic_lr", "actor_lr", "max_grad_norm", "reward_scale", "critic_updates_per_step"):
        require(getattr(a, name) > 0, f"algo.{name}", "greater than 0")
    for name in ("weight_decay", "target_noise", "target_noise_clip", "noise_low", "noise_high"):
        require(getattr(a, name) >= 0, f"algo.{name}", "0 or more")
    require(0 <= a.gamma < 1, "algo.gamma", "in [0, 1)")
    require(0 < a.tau <= 1, "algo.tau", "in (0, 1]")
    require(0 < a.policy_average <= 1, "algo.policy_average", "in (0, 1]")
    require(bool(a.hidden) and min(a.hidden) >= 1, "algo.hidden", "a list of positive widths, [256,128] say")
    require(a.num_atoms >= 2, "algo.num_atoms", "at least 2")
    require(a.v_min < a.v_max, "algo.v_min", "less than algo.v_max")
    require(cfg.max_time is None or cfg.max_time > 0, "max_time", "greater than 0")
    require(cfg.heartbeat_timeout > 0, "heartbeat_timeout", "greater than 0")
    require(a.warmup_steps >= a.n_step, "algo.warmup_steps", f"at least algo.n_step ({a.n_step})")
    for name in ("actor", "v_learner", "p_learner"):
        value = getattr(cfg.threads, name)
        require(value is None or value >= 1, f"threads.{name}", "at least 1")
    for name in ("threads", "contacts_per_env"):
        value = getattr(cfg.sim, name)
        require(value is None or value >= 1, f"sim.{name}", "at least 1")
    if a.batch_size > a.replay_size:
        raise UserError(
            f"algo.batch_size={a.batch_size} is larger than algo.replay_size={a.replay_size}: "
            "shrink the batch or enlarge the replay"
        )
    from pql.memory.pacing import replay_guard

    guard = replay_guard(cfg)
    if a.replay_size // cfg.num_envs * cfg.num_envs < 2 * guard:
        raise UserError(
            f"algo.replay_size={a.replay_size} is too small for num_envs={cfg.num_envs} at this update ratio: "
            f"needs at least {2 * guard}"
        )


def _check_identity(cfg: Config, saved: Config) -> None:
    new, old = OmegaConf.structured(cfg), OmegaConf.structured(saved)
    for name in IDENTITY:
        a, b = OmegaConf.select(new, name), OmegaConf.select(old, name)
        if a != b:
            raise UserError(
                f"run_dir={cfg.run_dir} was trained with {name}={b}, not {a}: "
                "resume it with the same value, or name another run_dir"
            )

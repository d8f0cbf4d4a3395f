"""`load`: groups in cfg/ plus `key=value` overrides -> one resolved `Config`."""

from __future__ import annotations

import contextlib
import math
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator, Sequence

from omegaconf import DictConfig, IntegerNode, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import tasks
from pql import algorithms
from pql.config import offline
from pql.config.checks import check_identity, validate
from pql.config.composed import PATHS, composed_once
from pql.config.devices import device_for, resolve_device, runtime_for
from pql.config.plugins import confirm, import_plugins
from pql.config.schema import CFG_DIR, FREE, Config, choices, known_keys
from pql.errors import UserError, nearest
from pql.files import write_atomically
from pql.keys import help_of
from tasks.simulators.base import BACKENDS

GROUPS = ("task", "algo", "sim", "preset")
DEFAULTS = {"task": "Ant", "algo": "pql", "sim": "auto"}  # as cfg/config.yaml has them


def load(overrides: list[str], composed: dict[Any, DictConfig] | None = None) -> Config:
    """Compose, type-check and resolve a configuration.

    Args:
        overrides: `key=value` strings, Hydra's grammar; `task=`, `algo=`, `sim=`, `preset=` choose files in cfg/.
        composed: remembers between calls what was composed, for runs that differ in numbers alone.
    Raises:
        UserError: an unknown key (names the nearest), a wrong type, a value out of range, keys that exclude
            each other, a run directory that cannot be started or resumed as asked.
    """
    given = parse(overrides)
    saved = _saved_config(given)
    # the tasks, simulators and algorithms that the other words may name
    plugins = _plugins(given) if "plugins" in given or saved is None else list(saved.plugins or ())
    new = [name for name in map(str, plugins) if "plugins" not in given and not tasks.is_imported(name)]
    if new:
        print(f"importing {', '.join(new)}, as {given['run_dir']}/config.yaml says")
    import_plugins(plugins, given.get("sim.python"))
    options: dict[str, Any] = {}
    if saved is None and given.get("data") is not None and not {"task", "task.name"} & given.keys():
        words, options = offline.task_words(given)
        overrides = [*overrides, *words]
        given.update(parse(words))
    _check_choices(given)
    if saved is None:
        algo = str(given.get("algo", given.get("algo.name", DEFAULTS["algo"])))
    else:
        algo = _algo_of(saved)
        asked = given.get("algo", given.get("algo.name", algo))
        if asked != algo:
            raise UserError(
                f"run_dir={given['run_dir']} was trained with algo={algo}, not {asked}: name another run_dir"
            )
    _check_keys(given, algo)
    make = lambda: composed_once(composed, overrides, given, lambda: _compose(overrides, given, algo))  # noqa: E731
    cfg = _typed(make() if saved is None else _override(saved, given))
    cfg.task.options.update({name: value for name, value in options.items() if name not in cfg.task.options})
    _resolve(cfg, given, saved is None)
    validate(cfg)
    if saved is not None:
        check_identity(cfg, _typed(saved))
    return cfg


def dumps(cfg: Config) -> str:
    """The resolved configuration as YAML, for a process that has no plugin's types yet."""
    return OmegaConf.to_yaml(OmegaConf.structured(cfg))


def loads(text: str) -> Config:
    """The configuration that `dumps` wrote, its plugins imported first. Raises UserError."""
    return _with_plugins(OmegaConf.create(text))


def save(cfg: Config, path: Path) -> None:
    """Write the resolved configuration as YAML, atomically."""
    write_atomically(path, dumps(cfg))


def read(path: Path, plugins: Sequence[str] = (), trust: bool = False) -> Config:
    """The configuration a run was started with.

    It comes with the run's folder, perhaps from someone else, and to import is to run code: it names plugins, an
    interpreter and, as "module:name", tasks, none of which is run because the file says so.

    Args:
        plugins: imported in place of those that the file names.
        trust: import what the file names, and say so.

    Raises:
        UserError: where it is none of ours, or names what is neither imported yet nor confirmed.
    """
    cfg = _raw(path)
    if plugins:
        cfg.plugins = _from_anywhere(plugins)
    confirm(cfg, path, plugins, trust)
    return _with_plugins(cfg)


def _from_anywhere(plugins: Sequence[str]) -> list[str]:
    """As they are found from other folders, in which a run is resumed, played and exported."""
    return [str(Path(name).resolve()) if name.endswith(".py") else name for name in plugins]


def _with_plugins(cfg: DictConfig) -> Config:
    import_plugins(list(cfg.get("plugins") or []))
    return _typed(cfg)


def overrides_help(words: list[str]) -> str:
    """What --help prints: tasks, algorithms, every key of the algorithm among `words` with its default and meaning."""
    given = parse([word for word in words if word.startswith(("algo=", "plugins="))])
    import_plugins(_plugins(given))
    _check_choices(given)
    algo = str(given.get("algo", DEFAULTS["algo"]))
    cfg = OmegaConf.structured(_typed(_compose([], given, algo)))
    lines = [
        "usage: scripts/train.py [key=value ...]",
        "",
        help_of("tasks", ", ".join(tasks.list()), 10),
        help_of("algorithms", ", ".join(algorithms.names()), 10),
        help_of("simulators", ", ".join(choices("sim")), 10),
        "",
        f"Keys of algo={algo} (--help algo=<another> shows its own).",
        "Defaults are those of the CPU preset with Ant; preset=gpu shows in config.yaml.",
        "",
    ]
    for name, about in known_keys(algo).items():
        value = OmegaConf.select(cfg, name)
        value = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if name == "seed":
            what = "in place of seed: a run for each, side by side if runtime=sync, in folders below run_dir"
            lines.append(help_of("seeds=[]", what, 32))
        lines.append(help_of(f"{name}={value}", about.get("help", ""), 32))
    return "\n".join(lines)


def parse(overrides: list[str]) -> dict[str, Any]:
    """Keys and their values, by Hydra's grammar: quotes are taken off, null is None, [a,b] a list."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    given = {}
    for text in overrides:
        name, equals, value = text.rstrip("\r").lstrip("+").partition("=")  # a job script may have Windows' line ends
        if not equals or not name:
            raise UserError(f"'{text}' is not of the form key=value; --help lists the keys")
        if not value.strip():
            raise UserError(f"'{text}' gives no value; write {name}=null for none, or leave it out")
        if name in PATHS and value != "null" and value[0] not in "'\"[{":  # as it stands, whatever its characters
            given[name] = value.strip()
            continue
        try:
            override = parser.parse_override(f"{name}={value}")
        except HydraException as error:
            known = [*known_keys(DEFAULTS["algo"]), *GROUPS]
            if name not in known and not name.startswith((*FREE, "algo.")):
                raise UserError(f"unknown key '{name}'{nearest(name, known)}; --help lists them all") from error
            raise UserError(f"{text}: cannot be read ({_first_line(error)}); quote it: {name}=\"'...'\"") from error
        if override.is_sweep_override():
            raise UserError(f"{text}: one value, please; scripts/sweep.py takes several")
        given[name] = override.value()
    if "algo.utd" in given and "algo.critic_updates_per_step" in given:
        raise UserError("algo.utd and algo.critic_updates_per_step both set the same ratio: give one of them")
    return given


def _check_keys(given: dict[str, Any], algo: str) -> None:
    """Every key must be one of this algorithm's runs."""
    known = [*known_keys(algo), *GROUPS]
    for name in given:
        if name in known or name.startswith(FREE):
            continue
        whose = [other for other in algorithms.names() if name in known_keys(other)]
        if whose:
            raise UserError(f"{name} is no key of algo={algo}, but of {', '.join(whose)}: drop it, or choose such")
        raise UserError(f"unknown key '{name}'{nearest(name, known)}; --help lists them all")


def _check_choices(given: dict[str, Any]) -> None:
    """What `algo=`, `sim=` and `preset=` may be: files in cfg/, and what is registered by now."""
    allowed = {"algo": algorithms.names(), "sim": [*choices("sim"), *BACKENDS], "preset": [*choices("preset"), "auto"]}
    for group, names in allowed.items():
        known = sorted(set(names))
        for name in (group, f"{group}.name"):
            if name in given and given[name] not in known:
                hint = nearest(str(given[name]), known)
                raise UserError(f"unknown {group} '{given[name]}'{hint}; there are: {', '.join(known)}")


def _plugins(given: dict[str, Any]) -> list[str]:
    plugins = given.get("plugins") or []
    if not isinstance(plugins, list):
        raise UserError(f"plugins={plugins}: must be a list: plugins=[{plugins}]")
    return [str(plugin) for plugin in plugins]


def _saved_config(given: dict[str, Any]) -> DictConfig | None:
    run_dir = given.get("run_dir")
    resume = given.get("resume", False) is True
    if run_dir is None or not Path(str(run_dir)).exists():
        return None
    run_dir = str(run_dir)
    path = Path(run_dir)
    if not path.is_dir():
        raise UserError(f"run_dir={run_dir} is a file: name a folder")
    # a launcher may have begun to log there, or a start was cut off, killed or by a full disk, as it wrote its first
    # files: no run yet
    if all(p.suffix == ".log" or p.name.startswith((".config.yaml.", "settings.jsonl")) for p in path.iterdir()):
        return None
    if not resume:
        raise UserError(f"run_dir={run_dir} exists: continue it with resume=true, or name another")
    if not (path / "config.yaml").exists():
        raise UserError(f"run_dir={run_dir} holds no config.yaml, so there is no run to resume: name another folder")
    return _raw(path / "config.yaml")


def _raw(path: Path) -> DictConfig:
    """A file of ours as it stands. Raises UserError."""
    try:
        cfg = OmegaConf.load(path)
    except Exception as error:
        mend = "copy it anew from where the run came from, or name another run_dir"
        raise UserError(f"cannot read {path} ({_first_line(error)}): {mend}") from error
    if not isinstance(cfg, DictConfig) or not isinstance(cfg.get("algo"), DictConfig):
        raise UserError(f"{path} is no configuration of a run: it names no algorithm")
    if any("${" in text for text in _texts(OmegaConf.to_container(cfg, resolve=False))):
        raise UserError(f"{path} refers to other values by ${{...}}, which a run's own never does: it was changed")
    if "plugins" not in cfg:  # the last of its keys
        raise UserError(f"{path} is cut short: copy it anew from where the run came from, or name another run_dir")
    return cfg


def _texts(value: Any) -> Iterator[str]:
    """The strings in nested dicts and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _algo_of(cfg: DictConfig) -> str:
    return str(cfg.algo.get("name", DEFAULTS["algo"]))


def _task_override(given: dict[str, Any]) -> list[str]:
    """`task=X` names a file in cfg/task or any registered task."""
    if "task" not in given:
        return []
    name = str(given["task"])
    if name in choices("task"):
        return [f"task={name}"]
    # What tasks a simulator has of its own, or why it is not there, is best said by the simulator itself.
    if not tasks.brings_tasks(str(given.get("sim", "auto"))) and name not in {*tasks.list(), *tasks.brought()}:
        known = sorted({*choices("task"), *tasks.list(), *tasks.brought()})
        others = "others' need sim=isaacgym, gymnasium, dm_control, mjlab or isaaclab"
        hint = nearest(name, known) or f"; there are: {', '.join(known)}"
        raise UserError(f"unknown task '{name}'{hint}; {others}")
    return ["task=custom", f"task.name={name}"]


def _compose(overrides: list[str], given: dict[str, Any], algo: str) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    schema = OmegaConf.to_container(OmegaConf.structured(Config))
    schema["algo"] = {**OmegaConf.to_container(OmegaConf.structured(algorithms.get(algo).Options)), "name": algo}
    ConfigStore.instance().store(name="schema", node=schema)

    preset = given.get("preset", "auto")
    if preset == "auto":
        task, sim = (str(given.get(f"{group}.name", given.get(group, DEFAULTS[group]))) for group in ("task", "sim"))
        preset = "gpu" if device_for(str(given.get("device", "auto")), task, sim).type == "cuda" else "cpu"
    if f"{preset}_{algo}" in choices("preset"):  # an algorithm of other proportions has sizes of its own
        preset = f"{preset}_{algo}"
    overrides = [o.rstrip("\r") for o in overrides]
    rest = [o for o in overrides if o.lstrip("+").partition("=")[0] not in (*GROUPS, *PATHS, "algo.name")]
    rest = ["+" + o.lstrip("+") if o.lstrip("+").startswith(FREE) else o.lstrip("+") for o in rest]
    sim = str(given.get("sim", DEFAULTS["sim"]))
    # what a plugin registered has no file
    chosen = [f"sim={sim}"] if sim in choices("sim") else ["sim=auto", f"sim.name={sim}"]
    chosen += [f"algo={algo}"] if algo in choices("algo") else ["~algo"]
    chosen += [*_task_override(given), f"preset={preset}"]
    try:
        with initialize_config_dir(str(CFG_DIR), version_base="1.3"):
            cfg = compose("config", overrides=[*chosen, *rest])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{_first_line(error)} (in: {' '.join(overrides)})") from error
    OmegaConf.set_struct(cfg, False)
    cfg.update({name: given[name] for name in PATHS if name in given})
    return cfg


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
    """With the types of its algorithm's options. Raises UserError.

    A file gives sizes to whoever has them: what another algorithm alone knows of is not for this one.
    """
    algo = _algo_of(cfg)
    schema = OmegaConf.structured(Config)
    schema.algo = OmegaConf.structured(algorithms.get(algo).Options)
    known = known_keys(algo)
    elsewhere = {name for other in algorithms.names() for name in known_keys(other)} - known.keys()
    cfg = cfg.copy()
    cfg.algo = {name: value for name, value in cfg.algo.items() if f"algo.{name}" not in elsewhere}
    try:
        return OmegaConf.to_object(OmegaConf.merge(schema, _whole(schema, OmegaConf.to_container(cfg, resolve=False))))
    except OmegaConfBaseException as error:
        name = getattr(error, "full_key", None)
        shown = f"{name}={OmegaConf.select(cfg, name)}: " if name else ""
        raise UserError(f"{shown}{_first_line(error)}") from error


def _whole(schema: DictConfig, values: dict[str, Any]) -> dict[str, Any]:
    """1e5 as a whole number where one is asked for: people write it so, and it is read as a float."""

    def of(node: Any, value: Any) -> Any:
        if isinstance(node, DictConfig) and isinstance(value, dict):
            return _whole(node, value)
        if isinstance(node, ListConfig) and isinstance(value, list) and node._metadata.element_type is int:
            return [int(v) if isinstance(v, float) and v.is_integer() else v for v in value]
        whole = isinstance(node, IntegerNode) and isinstance(value, float) and value.is_integer()
        return int(value) if whole else value

    return {name: of(schema._get_node(name) if name in schema else None, value) for name, value in values.items()}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _resolve(cfg: Config, given: dict[str, Any], fresh: bool) -> None:
    cfg.device = str(device_for(cfg.device, cfg.task.name, cfg.sim.name))
    with contextlib.suppress(tasks.TaskError):  # it is said where the environments are made
        cfg.sim.name = tasks.chosen(cfg.task.name, cfg.sim.name, cfg.device)
    cfg.plugins = _from_anywhere(cfg.plugins)
    if cfg.sim.python is not None:  # not resolved: a virtual environment's interpreter is a link
        cfg.sim.python = str(Path.cwd() / Path(cfg.sim.python).expanduser())
    if cfg.init_from is not None:
        cfg.init_from = str(Path(cfg.init_from).resolve())
    a = cfg.algo
    for name in ("v_device", "p_device", "replay_device"):
        if getattr(a, name) is not None:
            setattr(a, name, str(resolve_device(getattr(a, name), f"algo.{name}")))
    if cfg.data is not None:
        offline.resolve(cfg, given, fresh)
    if "algo.utd" in given:
        a.critic_updates_per_step = None
    if a.critic_updates_per_step is None:
        if a.utd is not None and not 0 < a.utd < math.inf:
            raise UserError(f"algo.utd={a.utd}: must be a finite number greater than 0")
        if a.utd is None:
            raise UserError("give algo.critic_updates_per_step or algo.utd")
        a.critic_updates_per_step = a.utd * cfg.num_envs
    a.utd = a.critic_updates_per_step / max(1, cfg.num_envs)
    if cfg.runtime == "auto":
        cfg.runtime = runtime_for(cfg.device, a.utd * cfg.max_env_steps)
    if cfg.run_dir is None:
        cfg.run_dir = new_run_dir(cfg, f"s{cfg.seed}")


def new_run_dir(cfg: Config, what: str) -> str:
    """A folder's name for who gave none."""
    task = cfg.task.name.replace("/", "-").replace(":", "-")
    now = datetime.now().strftime("%Y%m%d-%H%M%S-%f")  # two may be started in one second
    return f"runs/{task}_{cfg.algo.name}_{what}_{now}"

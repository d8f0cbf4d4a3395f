"""The typed configuration: which keys there are, what they mean, and their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from pql import algorithms
from pql.algorithms.base import Options
from pql.keys import key, keys_of

CFG_DIR = Path(__file__).resolve().parents[2] / "cfg"


@dataclass
class TaskConfig:
    name: str = key("Ant", "name under which the task is registered")
    options: Dict[str, Any] = field(default_factory=dict, metadata={"help": "arguments of the task's constructor"})
    cfg: Dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "isaacgym, mjlab, isaaclab: fields of the task's own file, task.cfg.env.<field>=..."},
    )


@dataclass
class SimConfig:
    name: str = key("auto", "auto, isaacgym, mujoco_warp, mujoco, gymnasium, dm_control, mjlab, isaaclab")
    threads: Optional[int] = key(None, "threads (or processes) that step the physics; null: a fair share of the cores")
    contacts_per_env: Optional[int] = key(None, "mujoco_warp: contacts to hold memory for, per environment; null: 24")
    step_timeout: float = key(
        5.0, "seconds for a step or a reset: gymnasium, dm_control: of one environment; mjlab, isaaclab: of all"
    )
    python: Optional[str] = key(
        None, "gymnasium, dm_control, mjlab, isaaclab: the interpreter that has them; null: this one"
    )
    metrics: List[str] = key([], "gymnasium: keys of info to tell of each episode: at its end; success/max, x/mean")


@dataclass
class ThreadsConfig:
    actor: Optional[int] = key(None, "torch threads of the actor; null: a fair share of the cores")
    v_learner: Optional[int] = key(None, "torch threads of the V-learner; null: a fair share of the cores, 1 if sync")
    p_learner: Optional[int] = key(None, "torch threads of the P-learner; null: a fair share of the cores")


@dataclass
class Config:
    task: TaskConfig = field(default_factory=TaskConfig)
    algo: Options = field(default_factory=Options)
    sim: SimConfig = field(default_factory=SimConfig)
    threads: ThreadsConfig = field(default_factory=ThreadsConfig)
    preset: str = key("auto", "sizes: cpu, gpu; auto: by the device")
    device: str = key("auto", "auto, cpu, cuda, cuda:1, ...")
    runtime: str = key(
        "auto", "parallel: three processes; sync: one, deterministic; auto: sync on one core and for < 10,000 updates"
    )
    num_envs: int = key(4096, "environments stepped together")
    seed: int = key(0, "seeds networks, simulation, exploration and sampling")
    run_dir: Optional[str] = key(None, "where everything is written; null: runs/<task>_<algo>_s<seed>_<time>")
    resume: bool = key(False, "continue run_dir from its last good checkpoint, or start it")
    init_from: Optional[str] = key(None, "a run or checkpoint whose networks and normaliser this one begins with")
    data: Optional[str] = key(
        None, "learn from this dataset alone (a folder, or one of Minari's): from max_env_steps of its transitions; "
        "eval_interval, log_interval and checkpoint_interval then count critic updates"
    )
    passes: Optional[float] = key(None, "data: passes over it, which are algo.utd x algo.batch_size; null: 256")
    max_env_steps: int = key(100_000_000, "stop after this many transitions")
    max_time: Optional[float] = key(None, "stop after this many seconds of training, earlier sessions included")
    eval_interval: int = key(5_000_000, "transitions between evaluations; 0: only at the end")
    eval_episodes: int = key(32, "episodes per evaluation, side by side, without noise")
    checkpoint_interval: int = key(20_000_000, "transitions between checkpoints; 0: only at the end")
    checkpoint_replay: bool = key(True, "checkpoints hold the replay ring")
    log_interval: int = key(500_000, "transitions between lines of metrics.jsonl")
    video: bool = key(True, "end with a video of the learned policy")
    wandb: bool = key(False, "also log to Weights & Biases (pip install wandb)")
    compile: bool = key(False, "compile updates whole, losses to target copies: seconds to start, then faster")
    matmul_precision: str = key(
        "highest", "of the networks' products: highest: float32; high, medium: TF32, bfloat16 where that is faster"
    )
    autocast: bool = key(False, "networks in bfloat16, with weights, optimizer and losses in float32")
    cuda_graphs: bool = key(True, "on a GPU, record each learner's update as a CUDA graph")
    lead_steps: int = key(2, "vector steps that the actor may be ahead of the V-learner (parallel)")
    heartbeat_timeout: float = key(120.0, "seconds without a sign of life after which a process counts as hung")
    profile: bool = key(False, "end with trace.json (Perfetto, Chrome) of all roles, and a table of their time by part")
    plugins: List[str] = key([], "Python files or modules imported first: where custom tasks register")


# A resumed run must agree with its checkpoint on these, and on the keys that an algorithm says so of.
IDENTITY = ("task.name", "task.options", "task.cfg", "num_envs", "lead_steps", "data")
FREE = ("task.options.", "task.cfg.")  # the task says which keys there are


def known_keys(algo: str, schema: type = Config, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Every dotted key of a run with this algorithm -> what `pql.keys.key` said of it."""
    keys: dict[str, dict[str, Any]] = {}
    for name, (f, about) in keys_of(schema).items():
        default = f.default_factory() if callable(f.default_factory) else f.default
        if name == "algo":
            keys.update(known_keys(algo, algorithms.get(algo).Options, "algo."))
        elif is_dataclass(default):
            keys.update(known_keys(algo, type(default), f"{prefix}{name}."))
        else:
            keys[prefix + name] = about
    return keys


def choices(group: str) -> list[str]:
    """Names that `group=` accepts."""
    return sorted(p.stem for p in (CFG_DIR / group).glob("*.yaml") if p.stem != "custom")

"""A trained policy as one ONNX file: raw observations in, actions in the task's range out."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pql.errors import UserError
from pql.run.evaluation import DeployedPolicy, TrainedPolicy, one_torch_thread

TOLERANCE = 1e-5  # of an action, whose range is [-1, 1]
OPSET = 17  # the first with LayerNormalization; the new exporter takes 18 at least
# onnxruntime's release, the highest opset and the highest IR version that it loads: tried, on small networks of each
READERS = (
    ("1.6", 13, 7), ("1.8", 14, 7), ("1.9", 15, 8), ("1.12", 17, 8), ("1.14", 18, 8), ("1.15", 19, 9), ("1.17", 20, 9),
    ("1.18", 21, 10), ("1.21", 22, 10), ("1.23", 23, 11),
)  # fmt: skip


class Parity(NamedTuple):
    """How far onnxruntime's actions are from torch's."""

    observations: int
    largest_difference: float

    @property
    def holds(self) -> bool:
        return self.largest_difference <= TOLERANCE  # False for NaN


def export(trained: TrainedPolicy, out: Path, steps: int = 200, opset: int = 0, ir_version: int = 0) -> Parity:
    """Write `out` and prove it: the file takes its name only where parity holds.

    The graph holds the observation normaliser, the policy and its tanh. Its input `obs` is (batch, obs_dim) float32,
    its output `action` (batch, action_dim) float32 in [-1, 1], the range that every task takes. The file's metadata
    say the rest.

    Args:
        steps: vector steps of `trained.env` whose observations are compared, besides random ones.
        opset, ir_version: of the file, for runtimes that read no newer ones; 0: the exporter's own.

    Raises:
        UserError: where a package is missing, or an opset can't be had.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"export needs {error.name}: pip install onnx onnxruntime onnxscript") from error
    known = {"opset": (opset, onnx.defs.onnx_opset_version()), "ir_version": (ir_version, onnx.IR_VERSION)}
    for name, (asked, highest) in known.items():
        if asked > highest:
            raise UserError(f"{name}={asked}: the installed onnx knows none above {highest}")

    temporary = out.with_name(f".{out.stem}.{os.getpid()}.part.onnx")
    policy = trained.act.cpu()
    try:
        if opset:
            _write_as(opset, policy, trained.env.obs_dim, temporary)
        else:
            _write(policy, trained.env.obs_dim, temporary)
        model = onnx.load(str(temporary))
        model.ir_version = ir_version or model.ir_version
        for name, value in metadata(trained).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = name, value
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(temporary))
        parity = compare(policy, temporary, observations(trained, steps))
        if parity.holds:
            os.replace(temporary, out)
        return parity
    finally:
        temporary.unlink(missing_ok=True)


def _write_as(opset: int, policy: DeployedPolicy, obs_dim: int, path: Path) -> None:
    """In an opset that was asked for. Raises UserError where the policy cannot be said in it."""
    import onnx

    try:
        if opset <= OPSET:
            _write_by_tracing(policy, obs_dim, path, opset)
        else:
            _write(policy, obs_dim, path)
            onnx.save(onnx.version_converter.convert_version(onnx.load(str(path)), opset), str(path))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"opset={opset}: this policy cannot be said in it ({reason}); try another") from error


def reader(path: Path) -> tuple[int, int, str]:
    """A file's opset and IR version, and the oldest onnxruntime that reads both, by name."""
    import onnx

    model = onnx.load(str(path))
    opset, ir = max(entry.version for entry in model.opset_import if not entry.domain), model.ir_version
    return opset, ir, next((version for version, *most in READERS if opset <= most[0] and ir <= most[1]), "a newer one")


def metadata(trained: TrainedPolicy) -> dict[str, str]:
    """What whoever deploys the policy has to know; ONNX metadata are text."""
    cfg, env, manifest = trained.cfg, trained.env, trained.manifest
    facts: dict[str, Any] = {
        "task": cfg.task.name,
        "task_options": json.dumps(cfg.task.options),
        "obs_dim": env.obs_dim,
        "action_dim": env.action_dim,
        "action_low": -1.0,
        "action_high": 1.0,
        "control_step_s": getattr(env, "dt", ""),
        "algo": cfg.algo.name,
        "gamma": cfg.algo.gamma,
        "n_step": cfg.algo.n_step,
        "utd": cfg.algo.utd,
        "seed": cfg.seed,
        "env_steps": manifest["env_steps"],
        "critic_updates": manifest.get("critic_updates", ""),
        "torch": torch.__version__,
    }
    return {name: str(value) for name, value in facts.items()}


def _write(policy: DeployedPolicy, obs_dim: int, path: Path) -> None:
    """torch's exporter: the new one where onnxscript is installed, else the one of torch 2.4."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        _write_by_tracing(policy, obs_dim, path, OPSET)
        return
    if not _has_new_exporter():
        _write_by_tracing(policy, obs_dim, path, OPSET)
        return
    shapes = {"obs": {0: torch.export.Dim("batch")}}
    _quietly(policy, obs_dim, path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)


def _write_by_tracing(policy: DeployedPolicy, obs_dim: int, path: Path, opset: int) -> None:
    """torch's older exporter, which takes older opsets."""
    axes = {"obs": {0: "batch"}, "action": {0: "batch"}}
    older = {"dynamo": False} if _has_new_exporter() else {}
    _quietly(policy, obs_dim, path, opset_version=opset, dynamic_axes=axes, **older)


def _has_new_exporter() -> bool:
    return tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) >= (2, 6)


def _quietly(policy: DeployedPolicy, obs_dim: int, path: Path, **options: Any) -> None:
    said = io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    names = {"input_names": ["obs"], "output_names": ["action"]}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            torch.onnx.export(policy, (torch.zeros(2, obs_dim),), str(path), **names, **options)
    finally:
        logging.disable(disabled)


def observations(trained: TrainedPolicy, steps: int, seed: int = 0) -> list[Tensor]:
    """Batches to compare on: those of episodes, then random ones within and far beyond what was seen."""
    env, policy = trained.env, trained.act
    generator = torch.Generator().manual_seed(seed)
    batches = []
    with torch.no_grad(), one_torch_thread():
        obs = env.reset()
        for _ in range(steps):
            batches.append(obs.cpu().clone())
            action = policy.cpu()(batches[-1])
            noise = torch.randn(action.shape, generator=generator)
            obs = env.step((action + 0.3 * noise).to(env.device)).obs
    for rows, scale in ((4096, 1.0), (4096, 5.0), (1000, 100.0), (7, 1.0), (1, 1.0)):
        unit = torch.randn(rows, env.obs_dim, generator=generator)
        batches.append(policy.mean + scale * unit / policy.inv_std)
    return [*batches, torch.zeros(3, env.obs_dim)]


def compare(policy: DeployedPolicy, path: Path, batches: list[Tensor]) -> Parity:
    """Largest absolute difference between the actions of `policy` and of the file, over all batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for obs in batches:
        with torch.no_grad():
            expected = policy(obs).numpy()
        (action,) = session.run(["action"], {"obs": obs.numpy()})
        if action.shape != expected.shape or action.dtype != np.float32:
            raise RuntimeError(f"the file gives {action.dtype} {action.shape}, the policy float32 {expected.shape}")
        largest = float(np.maximum(largest, np.abs(action - expected).max()))  # a NaN stays one
    return Parity(sum(len(obs) for obs in batches), largest)

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
OLD_OPSETS = (9, 17)  # that torch's older exporter is asked for
# onnxruntime, the highest opset and the highest IR version that it reads: each was tried on files of either
READERS = (
    ("1.6", 13, 7),
)


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

    temporary = out.with_name(f".{out.stem}.{os.getpid()}.part.onnx")
    policy = trained.act.cpu()
    try:
        _write(policy, trained.env.obs_dim, temporary, opset)
        model = onnx.load(str(temporary))
        if opset and opset != model.opset_import[0].version:
            model = _converted(model, opset)
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


def _converted(model: Any, opset: int) -> Any:
    import onnx

    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"opset={opset}: this policy cannot be said in it ({reason}); try a higher one") from error


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


def _write(policy: DeployedPolicy, obs_dim: int, path: Path, opset: int = 0) -> None:
    """torch's exporter, quietly: the new one where onnxscript is installed, else that of torch 2.4, which can do old
    opsets too.
    """
    example = torch.zeros(2, obs_dim)
    try:
        import onnxscript  # noqa: F401

        new = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) >= (2, 6)
    except ImportError:
        new = False
    options: dict[str, Any] = {"input_names": ["obs"], "output_names": ["action"]}
    if new and not 0 < opset <= OLD_OPSETS[1]:
        batch = torch.export.Dim("batch")
        options.update(dynamo=True, dynamic_shapes={"obs": {0: batch}}, external_data=False, verbose=False)
    else:
        if new:
            options.update(dynamo=False)
        axes = {"obs": {0: "batch"}, "action": {0: "batch"}}
        options.update(opset_version=min(opset, OLD_OPSETS[1]) or OPSET, dynamic_axes=axes)
    said = io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            torch.onnx.export(policy, (example,), str(path), **options)
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

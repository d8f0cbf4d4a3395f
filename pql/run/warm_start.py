"""A run that begins with another's networks and normaliser; its settings, its reward, its replay are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from pql.algorithms.base import P_LEARNER, V_LEARNER
from pql.errors import UserError
from pql.memory.shared import Shared
from pql.runtime import checkpoint


def start_from(origin: str, shared: Shared, say: Callable[[str], None]) -> Path:
    """Put what a checkpoint knows in place of the initial networks and statistics, before the roles are made.

    Args:
        origin: a run's folder, whose newest good checkpoint is taken, or one of its checkpoints.

    Returns:
        The checkpoint. Raises UserError where there is none, or it is one of other sizes.
    """
    path = Path(origin)
    try:
        found = (path, checkpoint.verify(path)) if (path / checkpoint.MANIFEST).is_file() else None
    except checkpoint.DamagedCheckpoint as error:
        raise UserError(f"init_from={origin}: checkpoint {error}") from error
    found = found or checkpoint.newest(path, say)
    if found is None:
        raise UserError(f"init_from={origin} holds no good checkpoint: name the folder of a run that has one")
    folder, manifest = found
    if "v_learner.safetensors" not in manifest["files"]:
        raise UserError(f"init_from={origin} holds a policy alone, no critic: name the run's folder")
    learners = {role: checkpoint.load_tensors(folder, role) for role in (V_LEARNER, P_LEARNER)}
    new = [(box, learners[role]["weights"], role) for role, box in shared.weights.items()]
    new.append((shared.average, learners[P_LEARNER]["average"], "policy"))
    new.append((shared.normalizer, checkpoint.load_tensors(folder, "actor")["normalizer"], "observations"))
    for box, value, what in new:
        if len(value) != box.buffers.shape[1]:
            raise UserError(
                f"init_from={origin}: its {what} has {len(value)} numbers, this run's {box.buffers.shape[1]}: give "
                "the same algo, algo.hidden and a task with the same observations and actions"
            )
    for box, value, _ in new:
        box.replace(value)
    said = f"{manifest['env_steps']} env steps of {manifest['task']}"
    say(f"starting with the networks and the normaliser of {folder}, {said}")
    return folder.resolve()

"""One process: the three roles take turns, in an order that the counters alone decide. Deterministic.

As nothing but the counters says whose turn it is, a run may be stopped after any turn and go on from there.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Sequence

import torch

from pql.memory.device import device_of
from pql.memory.shared import ROLES
from pql.roles.build import make_role
from pql.runtime import checkpoint, profile


def run(cfg: Any, monitor: Any, resume_from: Path | None) -> None:
    """Train until the monitor says it is finished; ends with a checkpoint."""
    with torch_as_configured(cfg):
        _run(cfg, monitor, resume_from)


@contextmanager
def torch_as_configured(cfg: Any) -> Iterator[None]:
    """Device, threads and precision of one process that does it all."""
    device = device_of(cfg, "actor")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # More torch threads would fight with the simulator's, and their number would change the last bits.
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(cfg.threads.v_learner or 1)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _run(cfg: Any, monitor: Any, resume_from: Path | None) -> None:
    roles = [make_role(role, cfg, monitor.algorithm, monitor.shared, cfg.sim.threads) for role in ROLES]
    if resume_from is not None:
        for role in roles:
            role.load_state_dict(checkpoint.load_tensors(resume_from, role.role))
    monitor.save = lambda: save(monitor, roles)
    traces = [profile.role_trace(role) for role in roles] + [profile.monitor_trace(monitor)] if cfg.profile else []
    monitor.start_clock()
    for trace in traces:
        trace.begin_anew()
    try:
        take_turns(monitor, *roles) if cfg.data is None else learn_alone(monitor, *roles[1:])
        monitor.stop_clock()
        if monitor.moved:
            monitor.save()
    finally:
        roles[0].close()
    if traces:
        monitor.show_profile([trace.as_dict() for trace in traces])


def save(monitor: Any, roles: Sequence[Any]) -> None:
    """A checkpoint of roles that stand still."""
    with checkpoint.writing(monitor.run_dir) as folder:
        for role in roles:
            checkpoint.save_tensors(folder, role.role, role.state_dict())
        monitor.save_shared(folder)


def take_turns(monitor: Any, actor: Any, v_learner: Any, p_learner: Any) -> None:
    """Until the run is finished or interrupted; of one run or of several side by side."""
    while not monitor.interrupted:
        if monitor.policy_update_due():
            p_learner.update()
        elif monitor.critic_update_due():
            v_learner.update()
        else:  # all that belongs to the last vector step is done
            monitor.tick()
            if monitor.finished():
                break
            actor.step()


def learn_alone(monitor: Any, v_learner: Any, p_learner: Any) -> None:
    """`take_turns` where all data is there: what is due comes after every critic update."""
    while not monitor.interrupted:
        if monitor.policy_update_due():
            p_learner.update()
            continue
        monitor.tick()
        if monitor.finished():
            break
        v_learner.update()

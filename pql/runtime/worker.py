"""A child process: builds its role, loops, answers its parent.

Only the standard library, and what needs no more, is imported at the top: a simulator may have to be imported before
torch.
"""

from __future__ import annotations

import errno
import multiprocessing.forkserver
import os
import signal
import sys
import time
import traceback
from typing import Any, Callable

from pql.signals import SIGNALS

WAKE_AT_LEAST_EVERY = 0.05  # seconds; a bound on every blocking call


class Link:
    """A role's side of the shared memory: sign of life, stop flag, checkpoint pauses, waiting.

    Args:
        wakes: role -> semaphore that wakes it. Semaphores have no owner: none stays locked when a process dies.
        save: writes the role's part of a checkpoint.
    """

    def __init__(self, role: str, shared: Any, wakes: dict[str, Any], save: Callable[[], None]):
        self.role, self.shared, self.wakes, self.save = role, shared, wakes, save
        self.parent = os.getppid()  # the process that forks children; it ends with the one that trains
        self.saved = int(shared.save)

    def attend(self) -> bool:
        """Call at every turn of a loop, between two steps. False: the run is over."""
        shared = self.shared
        shared.heartbeat[self.role].fill_(time.monotonic())
        ticket = int(shared.save)
        if ticket > self.saved and not int(shared.stop):
            self.saved = ticket
            self._save()
            shared.paused[self.role].fill_(ticket)
            while int(shared.saved) < ticket and not self._over():
                self.wakes[self.role].acquire(timeout=WAKE_AT_LEAST_EVERY)
                shared.heartbeat[self.role].fill_(time.monotonic())
        return not self._over()

    def _save(self) -> None:
        number = 0
        try:
            self.save()
        except OSError as error:  # a full disk: the parent says so, and the role goes on
            number = error.errno or errno.EIO
        self.shared.unsaved[self.role].fill_(number)

    def _over(self) -> bool:
        return bool(int(self.shared.stop)) or os.getppid() != self.parent

    def wait_for(self, allowed: Callable[[], bool]) -> bool:
        """Block until `allowed()`; False if the run ended instead."""
        if not self.attend():
            return False
        if allowed():
            return True
        began = time.monotonic()
        while not allowed():
            self.wakes[self.role].acquire(timeout=WAKE_AT_LEAST_EVERY)
            now = time.monotonic()
            self.shared.waited[self.role] += now - began  # told as it passes: a reader's interval is no longer than it
            began = now
            if not self.attend():
                return False
        return True

    def wake(self, *roles: str) -> None:
        """Tell others that a counter moved. One token is enough: whoever wakes looks at the counters."""
        for role in roles:
            if self.wakes[role].get_value() == 0:
                self.wakes[role].release()


def actor_loop(actor: Any, link: Link, pacer: Any) -> None:
    """Step the environments, never further ahead than pacing allows."""
    s = link.shared

    def may_step() -> bool:
        steps = int(s.vector_steps)
        return steps < int(s.step_limit) and pacer.leader_may_step(steps, int(s.critic_updates))

    while link.wait_for(may_step):
        actor.step()
        link.wake("v_learner")


def v_learner_loop(learner: Any, link: Link, critic_pacer: Any, policy_pacer: Any) -> None:
    """Update the critic as often as the actor's steps ask for, never further ahead of the policy than allowed."""
    s = link.shared

    def may_update() -> bool:
        updates = int(s.critic_updates)
        return critic_pacer.follower_may_step(int(s.vector_steps), updates) and policy_pacer.leader_may_step(
            updates, int(s.policy_updates)
        )

    while link.wait_for(may_update):
        learner.update()
        link.wake("actor", "p_learner")


def p_learner_loop(learner: Any, link: Link, pacer: Any) -> None:
    """Update the policy as often as the critic's updates ask for."""
    s = link.shared

    def may_update() -> bool:
        learning = int(s.vector_steps) >= s.learning_starts
        return learning and pacer.follower_may_step(int(s.critic_updates), int(s.policy_updates))

    while link.wait_for(may_update):
        learner.update()
        link.wake("v_learner")


def main(
    role: str, text: str, environ: dict[str, str], shared: Any, wakes: dict[str, Any], pipe: Any, resume_from: Any
) -> None:
    """Entry point of a child. Signals are the parent's business; an exception goes to it through `pipe`.

    Args:
        text: the configuration, by `config.dumps`: nothing unpickles a plugin's types before it is imported.
        environ: the environment variables of the process that trains.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the parent blocked them until here
    os.environ.clear()
    os.environ.update(environ)
    _be(role)
    try:
        _work(role, text, shared, wakes, resume_from)
    except BaseException as error:
        pipe.send((f"{type(error).__name__}: {error}", traceback.format_exc()))
        pipe.close()
        sys.stdout.flush()
        os._exit(1)


def _work(role: str, text: str, shared: Any, wakes: dict[str, Any], resume_from: Any) -> None:
    import torch

    from pql import algorithms, config
    from pql.memory.device import device_of
    from pql.memory.pacing import critic_pacer, policy_pacer
    from pql.roles.build import make_role
    from pql.runtime import checkpoint, profile
    from pql.runtime.threads import threads_of

    cfg = config.loads(text)
    threads = threads_of(cfg)
    torch.set_num_threads(threads[role])
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    device = device_of(cfg, role)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    worker = make_role(role, cfg, algorithms.make(cfg.algo, shared.spaces), shared, threads["sim"])
    if resume_from is not None:
        worker.load_state_dict(checkpoint.load_tensors(resume_from, role))

    def save() -> None:
        checkpoint.save_tensors(checkpoint.partial(cfg.run_dir), role, worker.state_dict())

    link = Link(role, shared, wakes, save)
    trace = profile.role_trace(worker) if cfg.profile else None
    if trace is not None:
        trace.time(link, {"wait_for": "wait", "save": "checkpoint", "wake": "wake"})
    critic, policy = critic_pacer(cfg, shared.learning_starts), policy_pacer(cfg)
    # ready; the clock starts when all are
    shared.ready[role].fill_(1)
    if link.wait_for(lambda: all(int(flag) for flag in shared.ready.values())):
        if trace is not None:
            trace.begin_anew()
        if role == "actor":
            actor_loop(worker, link, critic)
        elif role == "v_learner":
            v_learner_loop(worker, link, critic, policy)
        else:
            p_learner_loop(worker, link, policy)
    if trace is not None:
        profile.leave(cfg.run_dir, trace)


def _be(role: str) -> None:
    """Be called `pql-<role>` in ps and top, and be killed when the run's first process dies, where a kernel can.

    The parent is the process that forks. It ends when nobody holds its pipe: the first process should, but
    multiprocessing gives an end of it to every child, too. `Link` notices another parent on any system.
    """
    server = multiprocessing.forkserver._forkserver
    if getattr(server, "_forkserver_alive_fd", None) is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(15, f"pql-{role}".encode())  # PR_SET_NAME
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass
    if not multiprocessing.parent_process().is_alive():  # it died before the kernel knew
        os._exit(1)

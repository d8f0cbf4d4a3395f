"""From a configuration to what its roles are made of: shared memory, the ring over it, the roles themselves."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import torch

from pql import algorithms
from pql.algorithms.base import P_LEARNER, V_LEARNER, Algorithm
from pql.algorithms.survey import Survey, survey
from pql.config.environment import make_env
from pql.errors import UserError
from pql.memory.pacing import replay_guard
from pql.memory.replay import DTYPES, Layout, Replay
from pql.memory.shared import Shared
from pql.roles.actor import Actor, seen_by_actor
from pql.roles.dataset import Dataset
from pql.roles.diagnosis import names_of
from pql.roles.flat import Flat
from pql.roles.learner import Learner, seed_of
from pql.roles.normalizer import ReturnScale
from pql.roles.p_learner import DEPLOYED, PLearner
from pql.roles.v_learner import VLearner
from tasks.base import Spaces

LEARNERS = {V_LEARNER: VLearner, P_LEARNER: PLearner}


class Parts(NamedTuple):
    """What a run is made of before its roles are."""

    algorithm: Algorithm
    survey: Survey
    shared: Shared


def prepare(cfg: Any, spaces: Spaces, found: Survey | None = None, task_metrics: Sequence[str] = ()) -> Parts:
    """The configured algorithm in environments of these sizes, and the memory that its roles will share.

    Args:
        found: the survey, where one of the same sizes was made.
        task_metrics: what the environments tell besides (`VectorEnv.metrics`).

    Raises UserError.
    """
    algorithm = algorithms.make(cfg.algo, spaces)
    # one of its own: what an algorithm may count begins at 0
    found = found or survey(algorithms.make(cfg.algo, spaces))
    return Parts(algorithm, found, make_shared(cfg, algorithm, found, task_metrics))


def make_shared(cfg: Any, algorithm: Algorithm, found: Survey, task_metrics: Sequence[str]) -> Shared:
    """Allocate what the roles share and publish the initial networks, the same for one seed."""
    spaces = algorithm.spaces
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(cfg.seed, "networks"))
        made = {role: Flat({g.name: g.make() for g in algorithm.trained_by(role)}) for role in (P_LEARNER, V_LEARNER)}
    policy = made[P_LEARNER].data[made[P_LEARNER].all[DEPLOYED]]
    shared = Shared(
        ring=ring_of(cfg, spaces),
        weights={role: len(flat) for role, flat in made.items()},
        average_size=len(policy),
        normalizer_size=1 + 2 * spaces.seen_dim,
        returns_size=ReturnScale.SIZE,
        boards={V_LEARNER: (*found.metrics[V_LEARNER], "policy_age"), P_LEARNER: found.metrics[P_LEARNER]},
        gauges={"actor": seen_by_actor(task_metrics),
                **{role: names_of(algorithm, role, seen) for role, seen in found.diagnostics.items()}},
        device=torch.device(cfg.device),
    )
    shared.learning_starts = cfg.algo.warmup_steps
    shared.average.publish(policy)
    for role, flat in made.items():
        shared.weights[role].publish(flat.data)
    return shared


def ring_of(cfg: Any, spaces: Spaces) -> Layout:
    """Of the run's replay ring. Raises UserError."""
    a = cfg.algo
    ring = Layout(
        spaces, cfg.num_envs, a.replay_size, replay_guard(cfg), a.n_step, a.gamma, a.replay_ends,
        DTYPES[a.replay_dtype], on_host=a.replay_device == "cpu" and cfg.device != "cpu",
    )  # fmt: skip
    if ring.slots > ring.most_slots:
        raise UserError(
            f"algo.replay_size={a.replay_size} makes a ring of {ring.slots} observations; with algo.n_step={a.n_step} "
            f"at most {ring.most_slots} can be numbered: lower algo.replay_size"
        )
    return ring


def make_replay(cfg: Any, algorithm: Algorithm, shared: Shared) -> Replay:
    """The ring over shared storage, as any role sees it."""
    return Replay(ring_of(cfg, algorithm.spaces), storage=shared.ring_on_device())


def make_role(
    role: str, cfg: Any, algorithm: Algorithm, shared: Shared, sim_threads: int | None = None
) -> Actor | Dataset | Learner:
    """The actor, with environments of its own that it closes, or the dataset in its place, or a learner.

    Raises TaskError.
    """
    replay = make_replay(cfg, algorithm, shared)
    if role in LEARNERS:
        return LEARNERS[role](cfg, algorithm, replay, shared)
    if cfg.data is not None:
        return Dataset(cfg, algorithm, replay, shared)
    env = make_env(cfg, cfg.num_envs, seed_of(cfg.seed, "environments") % 2**31, sim_threads)
    return Actor(cfg, env, algorithm, replay, shared)

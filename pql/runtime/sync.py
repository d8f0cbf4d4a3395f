"""One process: the three roles take turns, in a fixed order. Deterministic."""

from __future__ import annotations

from pathlib import Path

import torch

from pql import algorithms, checkpoint
from pql.actor import Actor
from pql.evaluation import make_env
from pql.learner import seed_of
from pql.p_learner import PLearner
from pql.trainer import Monitor, make_replay
from pql.v_learner import VLearner


def run(cfg, monitor: Monitor, resume_from: Path | None) -> None:
    """Train until the monitor says it is finished; ends with a checkpoint."""
    shared, device = monitor.shared, torch.device(cfg.device)
    env = make_env(cfg, cfg.num_envs, seed_of(cfg.seed, "environments") % 2**31, cfg.sim.threads)
    algorithm = algorithms.make(cfg.algo, env.obs_dim, env.action_dim)
    replay = make_replay(cfg, env.obs_dim, env.action_dim, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    v_learner = VLearner(cfg, algorithm, replay, shared, device)
    p_learner = PLearner(cfg, algorithm, replay, shared, device)
    roles = (actor, v_learner, p_learner)
    critic_pacer, policy_pacer = monitor.pacers

    def save() -> None:
        folder = checkpoint.begin(monitor.run_dir)
        for role in roles:
            checkpoint.save_tensors(folder, role.role, role.state_dict())
        monitor.save_shared(folder)

    if resume_from is not None:
        for role in roles:
            role.load_state_dict(checkpoint.load_tensors(resume_from, role.role))
    monitor.save = save
    monitor.start_clock()
    while not monitor.finished():
        if int(shared.vector_steps) < int(shared.step_limit):
            actor.step()
        while critic_pacer.follower_may_step(int(shared.vector_steps), int(shared.critic_updates)):
            v_learner.update()
            while policy_pacer.follower_may_step(int(shared.critic_updates), int(shared.policy_updates)):
                p_learner.update()
        monitor.tick()
    save()
    env.close()

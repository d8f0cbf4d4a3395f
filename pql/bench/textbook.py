"""The update as one writes it first: what a learner's speed is held against.

Two critics as `nn.Sequential`, losses spelled out, `AdamW` and `clip_grad_norm_` on lists of parameters, a loop for the
soft target, and for PQL-D the projection with `index_add_` of both twins, all in eager float32. It has the same
mathematics, sizes, activation and normalisation as `pql.algorithms`.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms.pql import PQLOptions


class Data(NamedTuple):
    """Transitions, (B, ...) each."""

    obs: Tensor
    action: Tensor
    return_n: Tensor
    next_obs: Tensor
    discount: Tensor


class Textbook:
    """PQL and PQL-D, update by update, in eager torch."""

    def __init__(self, cfg: PQLOptions, data: Data):
        self.cfg, self.data, device = cfg, data, data.obs.device
        obs_dim, action_dim = data.obs.shape[1], data.action.shape[1]
        self.atoms = cfg.num_atoms if cfg.name == "pql_d" else 1
        if self.atoms > 1:
            self.support = torch.linspace(cfg.v_min, cfg.v_max, cfg.num_atoms, device=device)
        self.q1, self.q2 = (self.mlp(obs_dim + action_dim, self.atoms).to(device) for _ in range(2))
        self.target1, self.target2 = copy.deepcopy(self.q1), copy.deepcopy(self.q2)
        self.policy = nn.Sequential(*self.mlp(obs_dim, action_dim), nn.Tanh()).to(device)
        self.critic_parameters = [*self.q1.parameters(), *self.q2.parameters()]
        self.target_parameters = [*self.target1.parameters(), *self.target2.parameters()]
        decay = cfg.weight_decay
        self.critic_adam = torch.optim.AdamW(self.critic_parameters, lr=cfg.critic_lr, weight_decay=decay)
        self.policy_adam = torch.optim.AdamW(self.policy.parameters(), lr=cfg.actor_lr, weight_decay=decay)

    def mlp(self, width: int, out: int) -> nn.Sequential:
        layers = []
        for size in self.cfg.hidden:
            layers.append(nn.Linear(width, size))
            if self.cfg.layer_norm:
                layers.append(nn.LayerNorm(size, elementwise_affine=False))
            layers.append({"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}[self.cfg.activation]())
            width = size
        return nn.Sequential(*layers, nn.Linear(width, out))

    def sample(self) -> Data:
        index = torch.randint(len(self.data.obs), (self.cfg.batch_size,), device=self.data.obs.device)
        return Data(*(column[index] for column in self.data))

    def update_critic(self) -> None:
        b = self.sample()
        with torch.no_grad():
            noise = (torch.randn_like(b.action) * self.cfg.target_noise).clamp(
                -self.cfg.target_noise_clip, self.cfg.target_noise_clip
            )
            x = torch.cat([b.next_obs, (self.policy(b.next_obs) + noise).clamp(-1, 1)], 1)
            y = self.target_distribution(x, b) if self.atoms > 1 else self.target_value(x, b)
        x = torch.cat([b.obs, b.action], 1)
        if self.atoms > 1:
            loss = sum(-(F.log_softmax(q(x), 1) * y).sum(1).mean() for q in (self.q1, self.q2))
        else:
            loss = sum(F.mse_loss(q(x).squeeze(1), y) for q in (self.q1, self.q2))
        self.critic_adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.critic_parameters, self.cfg.max_grad_norm)
        self.critic_adam.step()
        with torch.no_grad():
            for target, source in zip(self.target_parameters, self.critic_parameters):
                target.lerp_(source, self.cfg.tau)

    def target_value(self, x: Tensor, b: Data) -> Tensor:
        return b.return_n + b.discount * torch.min(self.target1(x), self.target2(x)).squeeze(1)

    def target_distribution(self, x: Tensor, b: Data) -> Tensor:
        p1, p2 = self.target1(x).softmax(1), self.target2(x).softmax(1)
        y1, y2 = self.project(p1, b), self.project(p2, b)
        first = (p1 * self.support).sum(1) < (p2 * self.support).sum(1)
        return torch.where(first.unsqueeze(1), y1, y2)

    def project(self, probs: Tensor, b: Data) -> Tensor:
        """The projection as published C51 code has it."""
        v_min, v_max, atoms = self.cfg.v_min, self.cfg.v_max, self.atoms
        shifted = (b.return_n.unsqueeze(1) + b.discount.unsqueeze(1) * self.support).clamp(v_min, v_max)
        position = (shifted - v_min) / ((v_max - v_min) / (atoms - 1))
        lower, upper = position.floor().long(), position.ceil().long()
        lower[(upper > 0) & (lower == upper)] -= 1
        upper[(lower < atoms - 1) & (lower == upper)] += 1
        offset = (torch.arange(len(probs), device=probs.device) * atoms).unsqueeze(1).expand_as(lower)
        out = torch.zeros_like(probs)
        out.view(-1).index_add_(0, (lower + offset).view(-1), (probs * (upper - position)).view(-1))
        out.view(-1).index_add_(0, (upper + offset).view(-1), (probs * (position - lower)).view(-1))
        return out

    def update_policy(self) -> None:
        obs = self.sample().obs
        x = torch.cat([obs, self.policy(obs)], 1)
        q1, q2 = self.q1(x), self.q2(x)
        if self.atoms > 1:
            q1, q2 = ((q.softmax(1) * self.support).sum(1) for q in (q1, q2))
        loss = -torch.min(q1, q2).mean()
        self.policy_adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.cfg.max_grad_norm)
        self.policy_adam.step()

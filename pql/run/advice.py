"""The line of advice at the end of a run: which diagnostic is out of range, and what to try."""

from __future__ import annotations

from statistics import mean
from typing import Any, Mapping, Sequence

MASS_AT_ENDS = 0.1  # share of the target's probability
DORMANT = 0.5  # share of the hidden units
STEP, GROWTH = 0.005, 2.0  # of a step as a share of the weights, with weights that many times the first
RATIO = 3.0  # fresh to replayed TD error; healthy runs of ours had .3 to 2.2
SATURATED = 0.9  # share of the policy's actions
LINES = 2  # at least so many lines must say so, of which the newest half counts


def advice(lines: Sequence[Mapping[str, Any]], first_norms: Mapping[str, float]) -> str | None:
    """What is wrong and what to try, one line; None where all that is known is in range.

    Args:
        lines: of metrics.jsonl.
        first_norms: of each group's weights, when a run begins.
    """

    if lines and not lines[-1].get("critic_updates", 1):
        return (
            "nothing was learned: the run ended before its first critic update; raise max_env_steps, or the ratio "
            "(algo.utd), or lower algo.warmup_steps"
        )

    def late(name: str) -> float:
        values = [line[name] for line in lines if name in line]
        return mean(values[len(values) // 2 :]) if len(values) >= LINES else 0.0

    if late("mass_at_ends") > MASS_AT_ENDS:
        return (
            f"{late('mass_at_ends'):.0%} of the targets' probability lies at the ends of the critic's support: returns "
            "leave it; widen algo.v_min and algo.v_max (algo.value_bound), or lower algo.reward_scale"
        )
    for group, rate in (("critic", "critic_lr"), ("policy", "actor_lr")):
        if late(f"{group}_dormant_units") > DORMANT:
            return (
                f"{late(f'{group}_dormant_units'):.0%} of the {group}'s hidden units are dormant (dead ReLUs, say): "
                f"lower algo.{rate}, or try algo.layer_norm=true, algo.activation=elu, resets (algo.reset_interval)"
            )
    for group, rate in (("critic", "critic_lr"), ("policy", "actor_lr")):
        large = [line for line in lines if line.get(f"{group}_step", 0.0) > STEP
                 and line.get(f"{group}_weight_norm", 0.0) > GROWTH * first_norms[group]]  # fmt: skip
        if len(large) >= LINES:
            worst = max(line[f"{group}_step"] for line in large)
            return (
                f"the {group}'s step size is too large: a step moved its weights by {worst:.1%} of their norm, which "
                f"has grown to {large[-1][f'{group}_weight_norm'] / first_norms[group]:.1f} times the first: "
                f"lower algo.{rate}"
            )
    if late("policy_saturation") > SATURATED:
        return (
            f"{late('policy_saturation'):.0%} of the policy's actions are at their bounds, where tanh passes no "
            "gradient: lower algo.actor_lr and algo.critic_lr, or check that the task rewards anything else"
        )
    if late("td_error_ratio") > RATIO:
        return (
            f"the critic overfits: its TD error on transitions not yet trained on is {late('td_error_ratio'):.1f} "
            "times that on replayed ones; do fewer updates per transition (algo.utd, algo.critic_updates_per_step), or "
            "try more environments, a larger batch, resets (algo.reset_interval)"
        )
    return None

"""Rewards that say how nearly something is as it should be. Formulas: dm_control's utils/rewards.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

INF = float("inf")


def tolerance(
    value: Tensor, low: float, high: float, margin: float = 0.0, sigmoid: str = "gaussian", at_margin: float = 0.1
) -> Tensor:
    """1 where `value` is within [low, high]; outside it falls to `at_margin` at `margin` from there, as `sigmoid` does.

    Args:
        value: any shape.
        sigmoid: "gaussian", "linear", "quadratic" (these two reach 0), "long_tail" or "reciprocal".
        margin: with 0 everything outside is 0.
    """
    inside = (low <= value) & (value <= high)
    if margin == 0:
        return inside.to(value.dtype)
    away = torch.where(value < low, low - value, value - high) / margin
    return torch.where(inside, 1.0, _SIGMOIDS[sigmoid](away, at_margin))


def _gaussian(away: Tensor, at_margin: float) -> Tensor:
    return torch.exp(-0.5 * (away * math.sqrt(-2 * math.log(at_margin))) ** 2)


def _linear(away: Tensor, at_margin: float) -> Tensor:
    scaled = away * (1 - at_margin)
    return torch.where(scaled.abs() < 1, 1 - scaled, 0.0)


def _quadratic(away: Tensor, at_margin: float) -> Tensor:
    scaled = away * math.sqrt(1 - at_margin)
    return torch.where(scaled.abs() < 1, 1 - scaled**2, 0.0)


def _long_tail(away: Tensor, at_margin: float) -> Tensor:
    return 1 / ((away * math.sqrt(1 / at_margin - 1)) ** 2 + 1)


def _reciprocal(away: Tensor, at_margin: float) -> Tensor:
    return 1 / (away.abs() * (1 / at_margin - 1) + 1)


_SIGMOIDS = {
    "gaussian": _gaussian,
    "linear": _linear,
    "quadratic": _quadratic,
    "long_tail": _long_tail,
    "reciprocal": _reciprocal,
}


def small_control(ctrl: Tensor) -> Tensor:
    """1 without controls, .8 at controls of 1 and beyond, (N,)."""
    return (4 + tolerance(ctrl, 0, 0, 1, "quadratic", 0).mean(1)) / 5

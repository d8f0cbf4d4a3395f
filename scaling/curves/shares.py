"""When a stated share of a cell's seeds has arrived, counting those that never do for as long as they ran."""

from __future__ import annotations

import numpy as np

KINDS = ("mean", "median_seed", "probability")


def share_crossing(
    crossings: np.ndarray, ends: np.ndarray, weights: np.ndarray, share: float, middle: bool = False
) -> np.ndarray:
    """Steps until a share of the seeds is there, by the product-limit estimate (Kaplan and Meier 1958).

    A seed that ends before it crosses counts among those that have not, until its end: of seeds of one length the
    estimate is their plain share.

    Args:
        crossings: (S, K) steps of each seed, +inf where it never crosses, 0 where it is above at its first evaluation.
        ends: (S,) steps at which each seed's run ends.
        weights: (R, S) of the seeds in each bootstrap sample; each row sums to one.
        share: in (0, 1].
        middle: where exactly that share is there for a while, the (geometric) middle of that while, as a median has it,
            the last end standing for a time that never comes.

    Returns:
        (R, K) steps, +inf where fewer are ever there, 0 where as many are at their first evaluation.
    """
    out = np.empty((len(weights), crossings.shape[1]))
    rows = np.arange(len(weights))
    for level, steps in enumerate(crossings.T):
        arrived = np.isfinite(steps)
        times = np.where(arrived, steps, ends)
        order = np.lexsort((~arrived, times))  # of those at one step, the arrivals first
        mass = weights[:, order]
        waiting = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1]
        stay = np.where(arrived[order], 1 - mass / np.maximum(waiting, 1e-12), 1.0)
        there = 1 - np.cumprod(np.clip(stay, 0.0, 1.0), axis=1)
        later = np.append(np.where(arrived[order], times[order], np.inf), np.inf)
        first = np.where(there >= share - 1e-9, 1, 0)
        at = np.where(first.any(axis=1), first.argmax(axis=1), len(steps))
        out[:, level] = later[at]
        if middle:
            above = np.where((there > share + 1e-9) & (mass > 0), 1, 0)
            after = np.where(above.any(axis=1), above.argmax(axis=1), len(steps))
            other = np.minimum(later[after], ends.max())
            low = out[rows, level]
            between = np.isfinite(low) & (low > 0)
            out[between, level] = np.sqrt(low[between] * other[between])
    return out

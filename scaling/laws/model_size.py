"""The data law with model size: D_J(sigma, N) = D_min + (a / sigma)^alpha + (b / N)^beta.

Fitted as D = K_task [w0 + w1 (sigma / sigma_ref)^-alpha + w2 (N / N_ref)^-beta], the three shares summing to one, per
threshold; bounded, from many starts, all bootstrap samples together (see `laws` for the reasons).
"""

from __future__ import annotations

import itertools
from typing import Sequence

import numpy as np
import pandas as pd

from scaling.laws.data_law import ALPHA_BOUNDS
from scaling.laws.hyperparameters import impute_censored, log_limits, start_censored
from scaling.laws.uncertainty import mean_known

_STARTS = np.array(list(itertools.product(np.log([0.4, 0.8, 1.6]), np.log([0.4, 0.8, 1.6]), [-2.0, 0.0, 2.0],
                                          [-2.0, 0.0, 2.0])))  # fmt: skip


def _terms(theta: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln[w0 + w1 u^-alpha + w2 v^-beta] (R, n) and its derivatives (R, n, 4) in ln alpha, ln beta, two logits."""
    alpha, beta = np.exp(theta[:, 0, None]), np.exp(theta[:, 1, None])
    raw = np.exp(theta[:, 2:])
    total = 1 + raw.sum(axis=1, keepdims=True)
    w0, w1, w2 = 1 / total, raw[:, :1] / total, raw[:, 1:] / total
    p, q = np.exp(-alpha * u), np.exp(-beta * v)
    value = w0 + w1 * p + w2 * q
    jacobian = np.stack([-w1 * p * alpha * u, -w2 * q * beta * v, w1 * (p - value), w2 * (q - value)], axis=-1)
    return np.log(value), jacobian / value[:, :, None]


class ModelSizeLaw:
    """D_J(sigma, N).

    `fit(table)`: task, utd, model_size, threshold, env_steps, censored. prior_sd: of ln alpha and ln beta about 0, none
    by default (a grid over two axes determines them; the published fit has none). `fit_samples` as in `DataLaw`.
    Fitted per threshold (R, K): alpha_, beta_exponent_, a_, b_ and d_min_ of the typical task; log_scale_
    (R, tasks, K); determined_ {name: (K,)}.
    """

    def __init__(self, prior_sd: float | None = None, polish: int = 60) -> None:
        self.prior_sd = prior_sd
        self.polish = polish

    def fit(self, table: pd.DataFrame) -> ModelSizeLaw:
        table = table.assign(
            threshold=table.get("threshold", 0.0), task=table.get("task", "all"), censored=table.get("censored", False)
        )
        thresholds = np.sort(table["threshold"].unique())
        cells = table[["task", "utd", "model_size"]].drop_duplicates().reset_index(drop=True)
        at = table.merge(cells.assign(cell=cells.index), on=list(cells.columns), how="left")["cell"].to_numpy()
        level = np.searchsorted(thresholds, table["threshold"].to_numpy())
        values = np.full((1, len(cells), len(thresholds)), np.nan)
        steps = np.log(table["env_steps"].to_numpy(dtype=float))
        values[0, at, level] = np.where(table["censored"].to_numpy(dtype=bool), np.inf, steps)
        limits = np.zeros((2, *values.shape[1:]))
        limits[:, at, level] = steps
        return self.fit_samples(cells, values, np.zeros(values.shape[1:]), thresholds, limits)

    def fit_samples(self, cells: pd.DataFrame, log_steps: np.ndarray, variance: np.ndarray,
                    thresholds: Sequence[float], limits: np.ndarray | None = None) -> ModelSizeLaw:  # fmt: skip
        self.thresholds_ = np.asarray(thresholds, dtype=float)
        self.tasks_ = sorted(cells["task"].unique())
        self._task = np.array([self.tasks_.index(t) for t in cells["task"]])
        utd, size = (np.log(cells[c].to_numpy(dtype=float)) for c in ("utd", "model_size"))
        self.sigma_ref_, self.size_ref_ = float(np.exp(utd.mean())), float(np.exp(size.mean()))
        u, v = utd - np.log(self.sigma_ref_), size - np.log(self.size_ref_)
        if limits is None:
            limits = np.repeat(log_limits(cells)[:, :, None], log_steps.shape[2], axis=2)
        fits = [self._fit_level(log_steps[:, :, k], limits[:, :, k], variance[:, k], u, v)
                for k in range(log_steps.shape[2])]  # fmt: skip
        theta, scale, sd, excess = zip(*fits)
        self._theta = np.stack(theta, axis=1)  # (R, K, 4)
        seen = np.stack([np.isfinite(log_steps[0, self._task == t]).any(axis=0) for t in range(len(self.tasks_))])
        self.log_scale_ = np.where(seen[None], np.stack(scale, axis=2), np.nan)  # no crossing seen, no scale
        self.residual_sd_, self.excess_variance_ = np.array(sd), np.array(excess)
        self._coefficients()
        return self

    def _fit_level(self, values, limits, variance, u, v):
        """One threshold: (R, 4) parameters, (R, tasks) scales, residual sd, excess variance."""
        present = ~np.isnan(values[0])
        censored = np.isinf(values)
        filled = start_censored(np.where(present[None], values, 0.0), limits)
        onehot = (self._task[None] == np.arange(len(self.tasks_))[:, None]).astype(float) * present[None]
        means = onehot / np.maximum(onehot.sum(axis=1, keepdims=True), 1)
        remove = (np.eye(len(u)) - onehot.T @ means) * present[:, None]
        freedom = max(1.0, present.sum() - len(self.tasks_) - 4)

        def objective(theta, target, precision):
            value, jacobian = _terms(theta, u, v)
            residual = target - value @ remove.T
            jacobian = np.einsum("nm,rmp->rnp", remove, jacobian)
            return residual, jacobian, (residual**2).sum(axis=1) + precision * (theta[:, :2] ** 2).sum(axis=1)

        def solve(theta, target, precision):
            damping = np.full(len(theta), 1e-2)
            residual, jacobian, loss = objective(theta, target, precision)
            prior = np.diag([precision, precision, 0.0, 0.0])
            for _ in range(self.polish):
                hessian = np.einsum("rnp,rnq->rpq", jacobian, jacobian) + prior
                gradient = np.einsum("rnp,rn->rp", jacobian, residual) - theta @ prior
                diagonal = np.einsum("rpp->rp", hessian)
                damped = hessian + np.eye(4)[None] * (damping[:, None] * diagonal + 1e-12)[:, :, None]
                step = np.clip(np.linalg.solve(damped, gradient[:, :, None])[:, :, 0], -1, 1)
                trial = theta + step
                trial[:, :2] = np.clip(trial[:, :2], *np.log(ALPHA_BOUNDS))
                trial[:, 2:] = np.clip(trial[:, 2:], -9, 9)
                new = objective(trial, target, precision)
                better = new[2] <= loss
                theta = np.where(better[:, None], trial, theta)
                residual = np.where(better[:, None], new[0], residual)
                jacobian = np.where(better[:, None, None], new[1], jacobian)
                loss = np.where(better, new[2], loss)
                damping = np.where(better, damping * 0.3, damping * 8)
            return theta, loss

        target = filled[:1] @ remove.T
        starts, losses = solve(_STARTS, np.repeat(target, len(_STARTS), axis=0), 0.0)
        precision = 0.0
        if self.prior_sd is not None:
            precision = losses.min() / freedom / self.prior_sd**2
            starts, losses = solve(starts, np.repeat(target, len(_STARTS), axis=0), precision)
        theta = np.repeat(starts[[losses.argmin()]], len(values), axis=0)
        sd = float(np.sqrt(losses.min() / freedom))
        for _ in range(1 if not censored.any() else 8):
            if len(values) > 1 or censored.any():
                theta, _ = solve(theta, filled @ remove.T, precision)
            if censored.any():
                shape = _terms(theta, u, v)[0]
                fitted = shape + (filled - shape) @ means.T @ onehot
                filled = impute_censored(np.where(censored, values, filled), limits, fitted, np.array(sd))
        shape = _terms(theta, u, v)[0]
        excess = max(0.0, sd**2 - float(variance[present].mean())) if variance.max() > 1e-9 else 0.0
        return theta, (filled - shape) @ means.T, sd, excess

    def _coefficients(self) -> None:
        raw = np.exp(self._theta[:, :, 2:])
        total = 1 + raw.sum(axis=2)
        self.alpha_, self.beta_exponent_ = np.exp(self._theta[:, :, 0]), np.exp(self._theta[:, :, 1])
        self.shares_ = np.stack([1 / total, raw[:, :, 0] / total, raw[:, :, 1] / total], axis=2)
        typical = np.exp(mean_known(self.log_scale_, axis=1))
        self.d_min_ = typical * self.shares_[:, :, 0]
        self.a_ = (typical * self.shares_[:, :, 1]) ** (1 / self.alpha_) * self.sigma_ref_
        self.b_ = (typical * self.shares_[:, :, 2]) ** (1 / self.beta_exponent_) * self.size_ref_
        draws = self.shares_[1:] if len(self.shares_) > 1 else self.shares_
        low, _high = np.quantile(draws, [0.05, 0.95], axis=0)
        self.determined_ = {"d_min": low[:, 0] > 0.02, "alpha": low[:, 1] > 0.03, "a": low[:, 1] > 0.03,
                            "beta_exponent": low[:, 2] > 0.03, "b": low[:, 2] > 0.03}  # fmt: skip
        self.share_ = 1 - self.shares_[:, :, 0]

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that `restore` needs."""
        return {"kind": np.array("model_size"), "theta": self._theta, "log_scale": self.log_scale_,
                "thresholds": self.thresholds_, "tasks": np.array(self.tasks_, dtype=str),
                "reference": np.array([self.sigma_ref_, self.size_ref_])}  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> ModelSizeLaw:
        law = cls()
        law._theta, law.log_scale_, law.thresholds_ = state["theta"], state["log_scale"], state["thresholds"]
        law.tasks_, (law.sigma_ref_, law.size_ref_) = [str(t) for t in state["tasks"]], map(float, state["reference"])
        law._coefficients()
        return law

    @property
    def beta_(self) -> np.ndarray:
        """The sigma coefficient under its name in `DataLaw`."""
        return self.a_

    def predict_samples(self, utd: np.ndarray, level: int, task: str | None = None,
                        model_size: float | None = None) -> np.ndarray:  # fmt: skip
        """(R, len(utd)) steps at threshold number `level` (and a model size, by default the geometric mean)."""
        u = np.log(np.atleast_1d(np.asarray(utd, dtype=float)) / self.sigma_ref_)
        v = np.zeros_like(u) if model_size is None else np.full_like(u, np.log(model_size / self.size_ref_))
        shape = _terms(self._theta[:, level], u, v)[0]
        scales = self.log_scale_[:, :, level]
        scale = mean_known(scales, axis=1) if task is None else scales[:, self.tasks_.index(task)]
        return np.exp(shape + scale[:, None])

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """Steps for rows of utd, model_size (and threshold, task where there are several). Point estimate."""
        out = []
        for _, row in table.iterrows():
            level = int(np.argmin(np.abs(self.thresholds_ - row["threshold"]))) if "threshold" in table else 0
            task = row["task"] if "task" in table else None
            out.append(self.predict_samples(row["utd"], level, task, row["model_size"])[0, 0])
        return np.array(out)

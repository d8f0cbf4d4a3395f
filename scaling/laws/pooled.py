"""The data law with partial pooling: tasks share what they share and keep what differs, as far as the data tell.

    ln D_t,J(sigma) = ln K_t,J + ln[(1 - w_t,J) + w_t,J (sigma / sigma_ref)^-alpha_t,J] + g_t(ln sigma)

theta_t = (ln alpha, logit w) of a task ~ N(mu, diag(tau^2)); mu ~ N(PRIOR), which public sweeps told, tau by the tasks
at hand (scaled inverse chi-squared about SPREAD). g is what no such law says of a task: a Gaussian process of scale s
with an exponential covariance in ln sigma, s by the data among MISFITS. One task alone is the case mu + tau.

Inference is Gibbs sampling (Gelfand and Smith 1990): theta_t by its posterior on a grid, mu and tau by theirs in closed
form; thresholds are read off the same curves, so half of each one's likelihood is the mean of all. The samples are
draws from the posterior; the point estimate is the law nearest to their mean.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd
from scipy.special import log_ndtr, ndtri

from scaling.laws.data_law import ALPHA_BOUNDS, DataLaw, _shape
from scaling.laws.uncertainty import mean_known

PRIOR = np.array([0.0, -0.75])  # of (ln alpha, logit w at sigma_ref): what a task's own may be
PRIOR_SD = np.array([0.42, 2.5])
FLAT = 8.0  # sd of logit w where no sweep tells
SPREAD = np.array([0.2, 0.4])  # of tasks about their mean, before they have told
SPREAD_WEIGHT = 3.0  # tasks
MISFITS = np.array([0.02, 0.07, 0.14, 0.2, 0.28])  # sd of g
MISFIT_PRIOR = np.array([0.2, 0.25, 0.25, 0.2, 0.1])
LENGTH = 2.8  # of g's correlation, in ln sigma: four octaves
GRID = (24, 30)  # alpha by w
OWN = 0.5  # share of a threshold's own likelihood
BURN_IN = 30
KNOTS = 25
BEYOND = np.log(8.0)  # of the runs' ratios, at either end, that g is drawn over
LOGIT_BOUNDS = (-6.9, 6.9)


def _covariance(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    return scale**2 * np.exp(-np.abs(a[:, None] - b[None]) / LENGTH)


class _Task:
    """One task's points: likelihoods of theta on a grid, at every threshold that it is seen to cross."""

    def __init__(self, x: np.ndarray, values: np.ndarray, limits: np.ndarray, variance: np.ndarray) -> None:
        """x: (n,) ln(sigma / sigma_ref); values: (n, K) ln D, +-inf if censored; limits (2, n, K); variance (n, K)."""
        self.x, self.values, self.limits, self.variance = x, values, limits, variance
        self.seen = np.isfinite(values)
        self.levels = np.flatnonzero(self.seen.any(axis=0))

    def weigh(self, scale: float) -> None:
        """Inverse covariances of the points seen at each level, g of that scale included."""
        self.scale, self.inverse, self.log_det = scale, {}, {}
        for k in self.levels:
            here = self.seen[:, k]
            cov = _covariance(self.x[here], self.x[here], scale) + np.diag(self.variance[here, k])
            self.inverse[k], self.log_det[k] = np.linalg.inv(cov), np.linalg.slogdet(cov)[1]

    def scales(self, theta: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(G,) generalised least squares ln K under each theta (G, 2), its residuals (G, m), its variance."""
        here, inverse = self.seen[:, k], self.inverse[k]
        residual = self.values[here, k][None] - _shape(self.x[here][None], theta[:, :1], theta[:, 1:])[0]
        total = inverse.sum()
        scale = residual @ inverse.sum(axis=1) / total
        return scale, residual - scale[:, None], float(1 / total)

    def log_likelihood(self, theta: np.ndarray) -> np.ndarray:
        """(len(levels), G), ln K integrated out; a censored point counts by the chance that it is."""
        out = np.empty((len(self.levels), len(theta)))
        for row, k in enumerate(self.levels):
            scale, residual, spread = self.scales(theta, k)
            out[row] = -0.5 * np.einsum("gi,ij,gj->g", residual, self.inverse[k], residual)
            out[row] += 0.5 * np.log(spread) - 0.5 * self.log_det[k]
            for value, limit, side in ((np.inf, self.limits[0], 1.0), (-np.inf, self.limits[1], -1.0)):
                for i in np.flatnonzero(self.values[:, k] == value):
                    mean = scale + _shape(self.x[i : i + 1][None], theta[:, :1], theta[:, 1:])[0][:, 0]
                    sd = np.sqrt(spread + self.scale**2 + max(self.variance[i, k], 1e-4))
                    out[row] += log_ndtr(side * (mean - limit[i, k]) / sd)
        return OWN * out + (1 - OWN) * out.mean(axis=0)

    def zoom(self, mean: np.ndarray, sd: np.ndarray) -> None:
        """A grid over what the likelihood and a wide prior leave: `grid`, its `square` (G, 2) and `step` (2,), the
        likelihood's `table` (levels, G)."""
        low = np.array([np.log(ALPHA_BOUNDS[0]), LOGIT_BOUNDS[0]])
        high = np.array([np.log(ALPHA_BOUNDS[1]), LOGIT_BOUNDS[1]])
        for _ in range(4):
            axes = [np.linspace(a, b, n) for a, b, n in zip(low, high, GRID)]
            self.grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
            self.step = np.array([axis[1] - axis[0] for axis in axes])
            self.square = self.grid**2
            self.table = self.log_likelihood(self.grid)
            total = self.table - 0.5 * (((self.grid - mean) / sd) ** 2).sum(axis=1)
            inside = self.grid[(total > total.max(axis=1, keepdims=True) - 10).any(axis=0)]
            new = np.maximum(low, inside.min(axis=0) - self.step), np.minimum(high, inside.max(axis=0) + self.step)
            if ((new[1] - new[0]) > 0.7 * (high - low)).all():
                break
            low, high = new


class PooledLaw(DataLaw):
    """`DataLaw` whose tasks differ by as much as they tell. weight: of the public prior; 0 leaves `DataLaw`'s own, on
    alpha alone.

    `fit_samples` takes the point estimate (row 0), variances, and how many draws to make. Fitted: theta_ (R, tasks, K,
    2) of ln alpha and logit w, log_scale_ (R, tasks, K), misfit_ (R, tasks, KNOTS) of g, spread_ (R, 2) and misfit_sd_;
    of the typical task, whose theta and ln K are the tasks' means, alpha_, share_, d_min_, beta_ (R, K).
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def fit_samples(self, cells: pd.DataFrame, log_steps: np.ndarray, variance: np.ndarray,
                    thresholds: Sequence[float], limits: np.ndarray | None = None, samples: int = 1000,
                    rng: np.random.Generator | None = None) -> PooledLaw:  # fmt: skip
        super().fit_samples(cells, log_steps[:1], variance, thresholds, limits)
        rng = np.random.default_rng(0) if rng is None else rng
        if limits is None:
            from_cells = np.log(cells["horizon"].to_numpy(dtype=float)), np.log(cells["first"].to_numpy(dtype=float))
            limits = np.repeat(np.stack(from_cells)[:, :, None], log_steps.shape[2], axis=2)
        floor = max(1e-2 * float(variance.max()), 1e-8)
        noise = np.maximum(variance, floor)
        self._data = []
        for t in range(len(self.tasks_)):
            here = self._task == t
            self._data.append(_Task(self._log_ratio[here], log_steps[0, here], limits[:, here], noise[here]))
        self._mean, self._sd = PRIOR, PRIOR_SD / np.sqrt(max(self.weight, 1e-9))
        if self.weight == 0:
            self._mean, self._sd = np.zeros(2), np.array([PRIOR_SD[0], FLAT])
        self._choose_misfit()
        self._draw(samples, rng)
        self._typical()
        return self

    # --- fitting -----------------------------------------------------------------------------------------------------
    def _choose_misfit(self) -> None:
        """s by its marginal likelihood, tasks apart, and MISFIT_PRIOR: the posterior mean of s^2."""
        score = np.log(MISFIT_PRIOR)
        for at, scale in enumerate(MISFITS):
            for data in self._data:
                if not len(data.levels):
                    continue
                data.weigh(float(scale))
                data.zoom(self._mean, self._sd)
                total = data.table.mean(axis=0) - 0.5 * (((data.grid - self._mean) / self._sd) ** 2).sum(axis=1)
                score[at] += np.log(np.exp(total - total.max()).sum() * data.step.prod()) + total.max()
        chance = np.exp(score - score.max())
        self.misfit_sd_ = float(np.sqrt((chance * MISFITS**2).sum() / chance.sum()))
        for data in self._data:
            data.weigh(self.misfit_sd_)
            if len(data.levels):
                data.zoom(self._mean, self._sd)

    def _draw(self, samples: int, rng: np.random.Generator) -> None:
        """Gibbs: theta of each task on its grid, then mu and tau; all thresholds with the same random numbers."""
        tasks, levels = len(self.tasks_), len(self.thresholds_)
        self.theta_ = np.full((samples + 1, tasks, levels, 2), np.nan)
        spread = SPREAD.copy()
        self.spread_ = np.tile(spread, (samples + 1, 1))
        alive = np.zeros((tasks, levels), dtype=bool)
        for t, data in enumerate(self._data):
            alive[t, data.levels] = True
        mu, alone = np.tile(self._mean, (levels, 1)), alive.sum(axis=0).max() == 1
        even = _stratified(samples, rng)
        for step in range(-BURN_IN if not alone else 0, samples):
            theta = np.full((tasks, levels, 2), np.nan)
            for t, data in enumerate(self._data):
                if len(data.levels):
                    centre, sd = (self._mean[None], self._sd) if alone else (mu[data.levels], spread)
                    theta[t, data.levels] = _pick(data, centre, sd, even[step] if alone else rng.random(), rng)
            if step >= 0:
                self.theta_[step + 1] = theta
                self.spread_[step + 1] = spread
            if alone:
                continue
            count = alive.sum(axis=0)[:, None]
            precision = 1 / self._sd**2 + count / spread**2
            centre = (self._mean / self._sd**2 + np.nansum(theta, axis=0) / spread**2) / precision
            mu = centre + rng.standard_normal(2) / np.sqrt(precision)
            square = np.nansum(mean_known((theta - mu) ** 2, axis=1), axis=0)
            weight = SPREAD_WEIGHT + alive.any(axis=1).sum()
            spread = np.sqrt((SPREAD_WEIGHT * SPREAD**2 + square) / rng.chisquare(weight, 2))
        self._levels_of_curves(samples, rng)

    def _levels_of_curves(self, samples: int, rng: np.random.Generator) -> None:
        """ln K and g of every draw; row 0: the law nearest to the draws' mean over the runs and four times beyond."""
        tasks, levels = self.theta_.shape[1:3]
        self.knots_ = np.linspace(self._log_ratio.min() - BEYOND, self._log_ratio.max() + BEYOND, KNOTS)
        self.log_scale_ = np.full((samples + 1, tasks, levels), np.nan)
        self.misfit_ = np.zeros((samples + 1, tasks, KNOTS))
        for t, data in enumerate(self._data):
            if not len(data.levels):
                continue
            shared, left = ndtri(_stratified(samples, rng)), []
            for k in data.levels:
                scale, residual, spread = data.scales(self.theta_[1:, t, k], k)
                shift = np.sqrt(spread) * shared
                self.log_scale_[1:, t, k] = scale + shift
                pull = data.inverse[k] @ _covariance(data.x[data.seen[:, k]], self.knots_, data.scale)
                left.append((residual - shift[:, None]) @ pull)
            most = max(data.levels, key=lambda k: data.seen[:, k].sum())
            at = data.x[data.seen[:, most]]
            cross = _covariance(at, self.knots_, data.scale)
            rest = _covariance(self.knots_, self.knots_, data.scale) - cross.T @ data.inverse[most] @ cross
            root = np.linalg.cholesky(rest + 1e-9 * np.eye(KNOTS))
            self.misfit_[1:, t] = np.mean(left, axis=0) + rng.standard_normal((samples, KNOTS)) @ root.T
            window = np.linspace(data.x.min(), data.x.max() + np.log(4.0), 12)
            shapes = _shape(window[None], data.grid[:, :1], data.grid[:, 1:])[0]
            carried = self.misfit_[1:, t].mean(axis=0) @ _between(self.knots_, window)
            for k in data.levels:
                drawn = _shape(window[None], self.theta_[1:, t, k, :1], self.theta_[1:, t, k, 1:])[0]
                mean = (drawn + self.log_scale_[1:, t, k, None]).mean(axis=0) + carried
                gap = mean[None] - shapes
                best = int(gap.var(axis=1).argmin())
                self.theta_[0, t, k], self.log_scale_[0, t, k] = data.grid[best], gap[best].mean()

    def _typical(self) -> None:
        theta = mean_known(self.theta_, axis=1)
        self.alpha_, self.share_ = np.exp(theta[..., 0]), 1 / (1 + np.exp(-theta[..., 1]))
        scale = np.exp(mean_known(self.log_scale_, axis=1))
        self.d_min_ = scale * (1 - self.share_)
        self.beta_ = (scale * self.share_) ** (1 / self.alpha_) * self.sigma_ref_
        self.determined_ = self._determined()
        fitted = np.full(self.residuals_.shape, np.nan)
        for i, (t, x) in enumerate(zip(self._task, self._log_ratio)):
            theta = self.theta_[0, t]
            fitted[0, i] = _shape(np.array([[x]]), theta[:, :1], theta[:, 1:])[0][:, 0] + self.log_scale_[0, t]
        self.residuals_ = np.where(self._seen[None], self._filled[:1] - fitted, np.nan)

    # --- use ---------------------------------------------------------------------------------------------------------
    def predict_samples(self, utd: np.ndarray, level: int, task: str | None = None) -> np.ndarray:
        """(R, len(utd)) steps to threshold number `level`; for the typical task unless one is named."""
        x = np.log(np.atleast_1d(np.asarray(utd, dtype=float)) / self.sigma_ref_)
        if task is None:
            theta = mean_known(self.theta_[:, :, level], axis=1)
            scale = mean_known(self.log_scale_[:, :, level], axis=1)
            known = np.isfinite(self.log_scale_[0, :, level])
            misfit = self.misfit_[:, known].mean(axis=1)
        else:
            at = self.tasks_.index(task)
            theta, scale, misfit = self.theta_[:, at, level], self.log_scale_[:, at, level], self.misfit_[:, at]
        value = _shape(x[None], theta[:, :1], theta[:, 1:])[0] + misfit @ _between(self.knots_, x)
        return np.exp(value + scale[:, None])

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that `restore` needs."""
        return {"kind": np.array("pooled"), "theta": self.theta_, "log_scale": self.log_scale_, "misfit": self.misfit_,
                "knots": self.knots_, "thresholds": self.thresholds_, "tasks": np.array(self.tasks_, dtype=str),
                "reference": np.array([self.sigma_ref_])}  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> PooledLaw:
        law = cls()
        law.theta_, law.log_scale_, law.misfit_ = state["theta"], state["log_scale"], state["misfit"]
        law.knots_, law.thresholds_ = state["knots"], state["thresholds"]
        law.tasks_, law.sigma_ref_ = [str(t) for t in state["tasks"]], float(state["reference"][0])
        return law


def _stratified(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) uniform numbers, one in each of as many equal parts, shuffled: means of few draws are nearly exact."""
    return (rng.permutation(count) + rng.random(count)) / max(count, 1)


def _pick(data: _Task, centre: np.ndarray, sd: np.ndarray, uniform: float, rng: np.random.Generator) -> np.ndarray:
    """(levels, 2) one draw of theta at each level, from its grid; alpha first, so that levels move together."""
    precision = 1 / sd**2
    total = data.table - 0.5 * data.square @ precision + (centre * precision) @ data.grid.T  # up to a constant
    chance = np.cumsum(np.exp(total - total.max(axis=1, keepdims=True)), axis=1)
    at = (chance < uniform * chance[:, -1:]).sum(axis=1)
    return data.grid[at] + (rng.random(2) - 0.5) * data.step


def _between(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(len(knots), len(x)) weights that interpolate linearly, constant beyond the ends."""
    place = np.clip((x - knots[0]) / (knots[1] - knots[0]), 0, len(knots) - 1)
    low = np.minimum(place.astype(int), len(knots) - 2)
    out = np.zeros((len(knots), len(x)))
    columns = np.arange(len(x))
    out[low, columns], out[low + 1, columns] = 1 - (place - low), place - low
    return out

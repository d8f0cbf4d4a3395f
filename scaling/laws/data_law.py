"""The data law D_J(sigma) = D_min + (beta_J / sigma)^alpha: how much data a return costs at a given update ratio.

Fitted in log space as D = K_task,J [(1 - w_J) + w_J (sigma / sigma_ref)^-alpha], sigma_ref the geometric mean of the
ratios at hand, so that sigma of 1e-4 and of 16 are the same problem. Tasks share the shape and keep their own scale K;
thresholds share alpha and keep their own w. One start is enough because it is the best of a dense grid over the whole
bounded plane (alpha, w); a Gauss-Newton polish does the rest, for all bootstrap samples at once.

alpha carries a weak prior: log-normal about 1 with 90 % of its mass between 1/2 and 2. alpha = 1 is the case in which a
return costs a fixed number of updates plus a fixed number of transitions. With little noise the data overrule it; with
four ratios and noisy seeds they cannot tell 0.5 from 1.5, and the prior keeps the extrapolation sane.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import chi2

from scaling.laws.hyperparameters import impute_censored, log_limits, start_censored
from scaling.laws.uncertainty import mean_known

PRIOR_SD = float(np.log(2) / 1.645)
ALPHA_BOUNDS = (0.1, 4.0)
SHARE_BOUNDS = (1e-3, 1 - 1e-3)  # of the power term at sigma_ref
_ALPHAS = np.geomspace(*ALPHA_BOUNDS, 48)
_LOGITS = np.linspace(-6.9, 6.9, 57)


def _shape(log_ratio: np.ndarray, log_alpha: np.ndarray, logit: np.ndarray) -> tuple[np.ndarray, ...]:
    """ln[(1 - w) + w u^-alpha] and its derivatives in ln alpha and logit w; u = exp(log_ratio)."""
    alpha, share = np.exp(log_alpha), 1 / (1 + np.exp(-logit))
    power = np.exp(-alpha * log_ratio)
    value = (1 - share) + share * power
    return np.log(value), -share * power * alpha * log_ratio / value, share * (1 - share) * (power - 1) / value


def _project(root: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(R, K, n) values times the (K, n, n) matrix of each threshold."""
    return np.matmul(values.transpose(1, 0, 2), root.transpose(0, 2, 1)).transpose(1, 0, 2)


class DataLaw:
    """D_J(sigma) for one or more thresholds and tasks.

    `fit(table)`: task, utd, threshold, env_steps, censored (env_steps is then the horizon), optional left_censored
    (env_steps is then the first evaluation) and `log_variance` of ln D.
    `fit_samples(cells, log_steps, variance)`: cells (n rows: task, utd, horizon, first), log_steps (R, n, K) with +inf
    where never crossed, -inf where crossed before the first evaluation, variance (n, K) of ln D from seeds.

    Fitted: alpha_ (R,), share_ (R, K), log_scale_ (R, tasks, K), sigma_ref_, residual_sd_ (K,), d_min_ and beta_ (R, K)
    of the typical task (geometric mean of the tasks' scales), determined_ {name: (K,) bool} after bootstrap samples.
    """

    def __init__(self, prior_sd: float | None = PRIOR_SD, polish: int = 12, rounds: int = 40) -> None:
        self.prior_sd = prior_sd
        self.polish = polish
        self.rounds = rounds

    def fit(self, table: pd.DataFrame) -> DataLaw:
        thresholds = np.sort(table["threshold"].unique())
        cells = table[["task", "utd"]].drop_duplicates().reset_index(drop=True)
        index = table.merge(cells.assign(cell=cells.index), on=["task", "utd"], how="left")["cell"].to_numpy()
        level = np.searchsorted(thresholds, table["threshold"].to_numpy())
        log_steps = np.full((1, len(cells), len(thresholds)), np.nan)
        limits, variance = np.full((2, *log_steps.shape[1:]), np.inf), np.zeros(log_steps.shape[1:])
        steps = np.log(table["env_steps"].to_numpy(dtype=float))
        censored = table["censored"].to_numpy(dtype=bool) if "censored" in table else np.zeros(len(table), dtype=bool)
        log_steps[0, index, level] = np.where(censored, np.inf, steps)
        if "left_censored" in table:
            early = table["left_censored"].to_numpy(dtype=bool)
            log_steps[0, index[early], level[early]] = -np.inf
        limits[:, index, level] = steps
        if "log_variance" in table:
            variance[index, level] = table["log_variance"]
        return self.fit_samples(cells, log_steps, variance, thresholds, limits)

    def fit_samples(self, cells: pd.DataFrame, log_steps: np.ndarray, variance: np.ndarray,
                    thresholds: Sequence[float], limits: np.ndarray | None = None) -> DataLaw:  # fmt: skip
        self.thresholds_ = np.asarray(thresholds, dtype=float)
        self.tasks_ = sorted(cells["task"].unique())
        self._cells = cells.reset_index(drop=True)
        task = np.array([self.tasks_.index(t) for t in cells["task"]])
        log_utd = np.log(cells["utd"].to_numpy(dtype=float))
        self.sigma_ref_ = float(np.exp(np.unique(log_utd).mean()))
        self._task, self._log_ratio = task, log_utd - np.log(self.sigma_ref_)
        self._ratios, self._ratio_of = np.unique(self._log_ratio, return_inverse=True)
        if limits is None:
            limits = np.repeat(log_limits(cells)[:, :, None], log_steps.shape[2], axis=2)
        self._seen = np.isfinite(log_steps[0])  # (n, K)
        alive = np.stack([self._seen[task == t].any(axis=0) for t in range(len(self.tasks_))])  # else it has no scale
        present = ~np.isnan(log_steps[0]) & alive[task]
        self._present = present
        weights = self._weights(log_steps, limits, variance, present)
        self._run(log_steps, limits, weights)
        self._coefficients()
        return self

    # --- fitting -----------------------------------------------------------------------------------------------------
    def _projector(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K, tasks, n) weighted task means, and (K, n, n) square-root weights times removal of those means."""
        onehot = (self._task[None] == np.arange(len(self.tasks_))[:, None]).astype(float)  # (tasks, n)
        mass = onehot[None] * weights.T[:, None, :]
        means = mass / np.maximum(mass.sum(axis=2, keepdims=True), 1e-300)
        remove = np.eye(len(self._task))[None] - np.einsum("tn,ktm->knm", onehot, means)
        return means, np.sqrt(weights.T)[:, :, None] * remove

    def _weights(self, log_steps, limits, variance, present) -> np.ndarray:
        """Inverse of the seeds' variance plus the scatter the law leaves beyond it (Paule and Mandel 1982).

        The excess is zero unless chi-squared is significant at 10 %: at random half of all good fits show some.
        """
        floor = 1e-2 * np.max(np.where(present, variance, 0.0)) + 1e-12
        variance = np.where(present, np.maximum(variance, floor), np.inf)
        known = variance[present].max() > 1e-9
        self._run(log_steps[:1], limits, 1 / variance if known else present.astype(float))
        square = np.where(present, np.nan_to_num(self.residuals_[0]) ** 2, 0.0)
        freedom = self._freedom()
        self.residual_sd_ = np.sqrt(square.sum(axis=0) / freedom)
        if not known:
            self.excess_variance_ = np.zeros(len(freedom))
            return present.astype(float)
        excess = np.zeros(len(freedom))
        for level in range(len(freedom)):
            r2, v = square[present[:, level], level], variance[present[:, level], level]
            if (r2 / v).sum() > chi2.ppf(0.9, freedom[level]):
                high = r2.sum() / freedom[level] * 10
                excess[level] = brentq(lambda e, r2=r2, v=v, n=freedom[level]: (r2 / (v + e)).sum() - n, 0, high)
        self.excess_variance_ = excess
        return np.where(present, 1 / (variance + excess[None]), 0.0)

    def _run(self, log_steps: np.ndarray, limits: np.ndarray, weights: np.ndarray) -> None:
        unknown = ~np.isfinite(log_steps) | ~self._present[None]
        means, root = self._projector(weights)
        self._means = means
        filled = np.where(unknown, np.where(self._present[None], start_censored(log_steps, limits), 0.0), log_steps)
        sd = 1 / np.sqrt(np.maximum(weights, 1e-12))
        censored = np.isinf(log_steps) & self._present[None]
        self.precision_ = 0.0
        if self.prior_sd is not None:  # (ln alpha / prior_sd)^2 weighs as much as the data's own noise says it should
            free = self._refine(self._grid(filled[:1], root), filled[:1], root)
            self.precision_ = self._dispersion(free, filled, root) / self.prior_sd**2
        parameters = self._grid(filled, root)
        parameters = self._refine(parameters, filled, root)
        if censored.any():  # from the law of what was seen: EM is slow where a censored point alone holds the law
            seen_means, seen_root = self._projector(np.where(self._seen, weights, 0.0))
            self._means = seen_means
            start = self._refine(self._grid(filled, seen_root), filled, seen_root)
            fitted = self._fitted(start, filled)
            self._means = means
            nearest = np.where(log_steps > 0, np.maximum(fitted, limits[0] + 0.1), np.minimum(fitted, limits[1] - 0.1))
            filled = np.where(censored, nearest, filled)
            parameters = self._refine(start, filled, root)
            for _ in range(self.rounds):
                fitted = self._fitted(parameters, filled)
                noise = sd if np.median(weights[weights > 0]) != 1 else np.full_like(sd, self._scatter(fitted, filled))
                observed = np.where(censored, log_steps, filled)
                before, filled = filled, impute_censored(observed, limits, fitted, noise[None])
                parameters = self._refine(parameters, filled, root, polish=3)
                if np.abs(filled - before).max() < 1e-4:
                    break
        self._parameters, self._filled = parameters, filled
        self.residuals_ = np.where(np.isfinite(log_steps), log_steps - self._fitted(parameters, filled), np.nan)

    def _scatter(self, fitted: np.ndarray, filled: np.ndarray) -> float:
        return float(np.sqrt(np.mean((filled[0] - fitted[0])[self._present] ** 2)) + 1e-6)

    def _dispersion(self, parameters, filled: np.ndarray, root: np.ndarray) -> float:
        """Weighted sum of squares of sample 0 per degree of freedom, averaged over thresholds."""
        residual = np.einsum("knm,mk->kn", root, (filled[:1] - self._fitted(parameters, filled[:1]))[0])
        return float((residual**2).sum() / self._freedom().sum())

    def _freedom(self) -> np.ndarray:
        """(K,) observations less scales, share and this threshold's part of alpha; at least one."""
        counts = self._seen.sum(axis=0)
        scales = np.stack([self._seen[self._task == t].any(axis=0) for t in range(len(self.tasks_))]).sum(axis=0)
        return np.maximum(1.0, counts - scales - 1 - 1 / len(counts))

    def _grid(self, filled: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best point of the (alpha, w) grid: alpha shared by the thresholds, w per threshold. Samples in chunks."""
        shapes = _shape(self._log_ratio[None, None], np.log(_ALPHAS)[:, None, None], _LOGITS[None, :, None])[0]
        candidate = np.einsum("knm,alm->kaln", root, shapes)
        norm = (candidate**2).sum(axis=-1)  # (K, A, L)
        alpha, logit = [], []
        for part in np.array_split(np.arange(len(filled)), max(1, len(filled) // 64)):
            target = _project(root, filled[part].transpose(0, 2, 1))
            flat = candidate.reshape(len(candidate), -1, candidate.shape[-1])
            cross = np.matmul(target.transpose(1, 0, 2), flat.transpose(0, 2, 1)).transpose(1, 0, 2)
            cross = cross.reshape(len(part), *candidate.shape[:3])
            profile = norm[None] - 2 * cross
            lowest = profile.min(axis=3)  # (r, K, A)
            total = lowest.mean(axis=1) + (target**2).sum(axis=-1).mean(axis=1)[:, None]
            total = total + self.precision_ * np.log(_ALPHAS)[None] ** 2
            best = total.argmin(axis=1)
            alpha.append(np.log(_ALPHAS)[best])
            logit.append(_LOGITS[profile[np.arange(len(part)), :, best].argmin(axis=-1)])
        return np.concatenate(alpha), np.concatenate(logit)

    def _refine(self, parameters, filled: np.ndarray, root: np.ndarray,
                polish: int | None = None) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Levenberg-Marquardt on (ln alpha, logit w_1..K); each w touches only its threshold, so steps are closed."""
        alpha, logit = parameters
        levels = logit.shape[1]
        target = _project(root, filled.transpose(0, 2, 1))
        damping = np.full(len(alpha), 1e-3)

        def evaluate(alpha: np.ndarray, logit: np.ndarray):
            shape = _shape(self._ratios[None, None], alpha[:, None, None], logit[:, :, None])
            value, by_alpha, by_logit = (part[:, :, self._ratio_of] for part in shape)
            residual = target - _project(root, value)
            loss = (residual**2).sum(axis=(1, 2)) / levels + self.precision_ * alpha**2
            return residual, by_alpha, by_logit, loss

        residual, by_alpha, by_logit, loss = evaluate(alpha, logit)
        for _ in range(polish or self.polish):
            ja, jl = _project(root, by_alpha), _project(root, by_logit)
            aa = (ja**2).sum(axis=(1, 2)) + levels * self.precision_
            ga = (ja * residual).sum(axis=(1, 2)) - levels * self.precision_ * alpha
            ll, al, gl = (jl**2).sum(axis=2), (ja * jl).sum(axis=2), (jl * residual).sum(axis=2)
            ll = ll * (1 + damping[:, None]) + 1e-9
            step_a = (ga - (al * gl / ll).sum(axis=1)) / (aa * (1 + damping) - (al**2 / ll).sum(axis=1) + 1e-12)
            step_l = (gl - al * step_a[:, None]) / ll
            new_alpha = np.clip(alpha + np.clip(step_a, -0.5, 0.5), *np.log(ALPHA_BOUNDS))
            new_logit = np.clip(logit + np.clip(step_l, -1, 1), -6.9, 6.9)
            trial = evaluate(new_alpha, new_logit)
            better = trial[3] <= loss
            pick = better[:, None, None]
            residual, by_alpha = np.where(pick, trial[0], residual), np.where(pick, trial[1], by_alpha)
            by_logit, loss = np.where(pick, trial[2], by_logit), np.where(better, trial[3], loss)
            alpha, logit = np.where(better, new_alpha, alpha), np.where(better[:, None], new_logit, logit)
            damping = np.where(better, damping * 0.2, damping * 10)
        return alpha, logit

    def _values(self, parameters) -> np.ndarray:
        """(R, K, n) ln of the shape at every cell."""
        shape = _shape(self._ratios[None, None], parameters[0][:, None, None], parameters[1][:, :, None])[0]
        return shape[:, :, self._ratio_of]

    def _scales(self, parameters, filled: np.ndarray) -> np.ndarray:
        """(R, tasks, K) ln K: weighted task means of what the shape leaves."""
        value = self._values(parameters)
        return np.einsum("ktn,rkn->rtk", self._means, filled.transpose(0, 2, 1) - value)

    def _fitted(self, parameters, filled: np.ndarray) -> np.ndarray:
        value = self._values(parameters)
        return value.transpose(0, 2, 1) + self._scales(parameters, filled)[:, self._task]

    def _coefficients(self) -> None:
        alpha, logit = self._parameters
        self.alpha_ = np.exp(alpha)
        self.share_ = 1 / (1 + np.exp(-logit))
        self.log_scale_ = self._scales(self._parameters, self._filled)
        seen = np.stack([self._present[self._task == t].any(axis=0) for t in range(len(self.tasks_))])  # (tasks, K)
        self.log_scale_ = np.where(seen[None], self.log_scale_, np.nan)
        typical = np.exp(mean_known(self.log_scale_, axis=1))
        self.d_min_ = typical * (1 - self.share_)
        self.beta_ = (typical * self.share_) ** (1 / self.alpha_[:, None]) * self.sigma_ref_
        self.determined_ = self._determined()

    def _determined(self) -> dict:
        """What the data tell: alpha and beta need a power term, D_min a plateau, each beyond the bounds and noise."""
        share, samples = self.share_, len(self.share_) > 1
        low, high = (np.quantile(share[1:], [0.05, 0.95], axis=0) if samples else (share[0], share[0]))
        plateau, power = high < 0.97, low > 0.03
        alphas = self.alpha_ if self.alpha_.ndim == 2 else self.alpha_[:, None]
        spread = np.quantile(np.log(alphas[1:]), [0.05, 0.95], axis=0) if samples else np.zeros((2, 1))
        inner = (alphas[0] > ALPHA_BOUNDS[0] * 1.05) & (alphas[0] < ALPHA_BOUNDS[1] * 0.95)
        ratios = np.array([len(np.unique(self._log_ratio[seen])) for seen in self._seen.T])
        alpha = inner & (spread[1] - spread[0] < np.log(4)) & (ratios >= 3)
        return {"alpha": power & alpha, "beta": power & plateau & alpha, "d_min": plateau & (ratios >= 3)}

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that `restore` needs."""
        return {"kind": np.array("sigma"), "log_alpha": self._parameters[0], "logit": self._parameters[1],
                "log_scale": self.log_scale_, "thresholds": self.thresholds_,
                "tasks": np.array(self.tasks_, dtype=str), "reference": np.array([self.sigma_ref_])}  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> DataLaw:
        """A law that predicts; it cannot be refitted."""
        law = cls()
        law._parameters = (state["log_alpha"], state["logit"])
        law.alpha_, law.share_ = np.exp(state["log_alpha"]), 1 / (1 + np.exp(-state["logit"]))
        law.log_scale_, law.thresholds_ = state["log_scale"], state["thresholds"]
        law.tasks_, law.sigma_ref_ = [str(t) for t in state["tasks"]], float(state["reference"][0])
        return law

    # --- use ---------------------------------------------------------------------------------------------------------
    def predict_samples(self, utd: np.ndarray, level: int, task: str | None = None) -> np.ndarray:
        """(R, len(utd)) steps to threshold number `level`; for the typical task unless one is named."""
        log_ratio = np.log(np.atleast_1d(np.asarray(utd, dtype=float)) / self.sigma_ref_)
        alpha, logit = self._parameters
        value = _shape(log_ratio[None], alpha[:, None], logit[:, [level]])[0]
        scales = self.log_scale_[:, :, level]
        scale = mean_known(scales, axis=1) if task is None else scales[:, self.tasks_.index(task)]
        return np.exp(value + scale[:, None])

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """Steps for rows of utd and threshold, and task where given (else the typical task). Point estimate."""
        levels = [int(np.argmin(np.abs(self.thresholds_ - j))) for j in table["threshold"]]
        tasks = table["task"] if "task" in table else [None] * len(table)
        return np.array([self.predict_samples(u, k, t)[0, 0] for u, k, t in zip(table["utd"], levels, tasks)])

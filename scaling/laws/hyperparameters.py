"""The best batch size B*(sigma), learning rate eta*(sigma), ... from a smooth response surface, and where it is blind.

ln D = m(task, sigma, N) + z'H z / 2 + z'(l_task + h ln sigma + v ln N), with z = (ln B, ln eta, ...), any positive
hyperparameters: a quadratic bowl whose curvature H is shared and whose bottom moves along one line per task,
B*(sigma) = (beta_B / sigma)^alpha_B. Tasks share its slope but for deviations that are held back as much as the cells
say (random slopes, by restricted maximum likelihood). Linear in its parameters: one least-squares problem serves every
bootstrap sample.
"""

from __future__ import annotations

import itertools
from typing import Sequence

import numpy as np
import pandas as pd
from scipy.special import log_ndtr

HYPERPARAMETERS = ("batch_size", "learning_rate")
RIDGES = np.array([0.3, 1.0, 3.0, 10.0, 30.0, 1e6])  # residual variance over that of a task's own slope; 1e6: no such
SURE = 2.0  # standard errors
SMALL = 0.1  # of ln D over the whole grid: a direction that surely matters less is flat
SHAPES = ("bowl", "larger is better", "smaller is better", "flat", "unclear")


def log_limits(cells: pd.DataFrame) -> np.ndarray:
    """(2, n): ln of each cell's horizon, which bounds +inf from below, and of its first evaluation, which bounds -inf
    from above (without a column `first`, the horizon)."""
    horizon = np.log(cells["horizon"].to_numpy(dtype=float))
    return np.stack([horizon, np.log(cells["first"].to_numpy(dtype=float)) if "first" in cells else horizon])


def start_censored(observed: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """A start for EM: what never crossed a third beyond its horizon, what crossed unseen a third before."""
    return np.where(observed == np.inf, limits[0] + 0.3, np.where(observed == -np.inf, limits[1] - 0.3, observed))


def impute_censored(observed: np.ndarray, limits: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """The E step of a tobit regression with normals of the given mean and sd.

    limits: (2, ...) as `log_limits`. +inf is replaced by E[y | y > limits[0]], -inf by E[y | y < limits[1]].
    """
    out = observed.copy()
    for value, limit, side in ((np.inf, limits[0], 1.0), (-np.inf, limits[1], -1.0)):
        here = observed == value
        if here.any():
            scale = np.broadcast_to(np.maximum(sd, 1e-9), observed.shape)[here]
            gap = side * (np.broadcast_to(limit, observed.shape)[here] - mean[here]) / scale
            hazard = np.exp(-0.5 * gap**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(-gap))
            out[here] = mean[here] + side * scale * hazard
    return out


def _crossed(pair: np.ndarray, group: np.ndarray) -> bool:
    """Whether any group tells the product of the two columns from the columns and their squares."""
    for g in np.unique(group):
        first, second = pair[group == g].T
        alone = np.stack([np.ones_like(first), first, second, first**2, second**2], axis=1)
        both = np.column_stack([alone, first * second])
        if np.linalg.matrix_rank(both, tol=1e-6) > np.linalg.matrix_rank(alone, tol=1e-6):
            return True
    return False


class ResponseSurface:
    """Tobit regression of ln D on a quadratic in the logarithms of `names`.

    `fit(table)`: one row per cell with task, utd, the hyperparameters, env_steps, censored (env_steps is then the
    horizon), optional left_censored (env_steps is then the first evaluation), model_size and seeds. `fit_samples(cells,
    log_steps)` takes bootstrap samples at once: cells (n rows, with `horizon` and `first`), log_steps (R, n) with +inf
    where never crossed and -inf where crossed before the first evaluation, row 0 the point estimate.

    Fitted, R = 1 after `fit`: swept_ (which of the names take three values or more at one ratio), exponent_ {name:
    (R,)} with x* ~ sigma^-exponent, of the mean task, task_exponent_ {name: (R, tasks)}, ridge_, log_best_ {name: (R,
    tasks)} at sigma 1 (and at the mean ln N), hessian_ (R, d, d), groups_ (task, utd, model_size),
    log_data_ (R, groups): ln D at the best hyperparameters within the grid, residual_sd_, edge_ (table), determined_
    {name: whether the bowl is surely bent along it, the other ones at their best}, shape_ {name: one of SHAPES: a bowl
    with its bottom within most grids; else monotone over the grid, or surely flat over it}, log_range_ {name: (low,
    high)} of the grid and half a step beyond.
    """

    def __init__(self, names: Sequence[str] = HYPERPARAMETERS, interaction: bool = True, correct_bias: bool = True,
                 iterations: int = 25) -> None:  # fmt: skip
        self.names = tuple(names)
        self.interaction = interaction
        self.correct_bias = correct_bias
        self.iterations = iterations

    def fit(self, table: pd.DataFrame) -> ResponseSurface:
        cells = table.assign(horizon=table["env_steps"], first=table["env_steps"])
        log_steps = np.where(table["censored"], np.inf, np.log(table["env_steps"].to_numpy(dtype=float)))
        if "left_censored" in table:
            log_steps = np.where(table["left_censored"], -np.inf, log_steps)
        return self.fit_samples(cells, log_steps[None])

    def fit_samples(self, cells: pd.DataFrame, log_steps: np.ndarray) -> ResponseSurface:
        cells = cells.reset_index(drop=True)
        if "model_size" not in cells:
            cells = cells.assign(model_size=np.nan)
        self._cells = cells
        self.tasks_ = sorted(cells["task"].unique())
        self.groups_, group = self._groups(cells, log_steps[0])
        used = group >= 0
        cells, log_steps, group = cells[used].reset_index(drop=True), log_steps[:, used], group[used]
        self.swept_ = [name for name in self.names if self._levels(cells, group, name) >= 3]
        design = self._design(cells, group)
        limits = log_limits(cells)
        weights = np.sqrt(cells["seeds"].to_numpy(dtype=float)) if "seeds" in cells else np.ones(len(cells))
        weights = weights / np.sqrt(np.mean(weights**2))
        coefficients, sd, covariance = self._tobit(design, log_steps, limits, weights)
        self.coefficients_, self.residual_sd_, self.cell_residuals_ = coefficients, sd, None
        with np.errstate(invalid="ignore"):
            residuals = log_steps[0] - coefficients[0] @ design.T
        self.residuals_ = cells.assign(residual=np.where(np.isinf(residuals), np.nan, residuals))
        self._solve(cells, group, covariance)
        return self

    @staticmethod
    def _groups(cells: pd.DataFrame, point: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Groups with at least one crossing seen: where every run is censored nothing says where the bottom is."""
        keys = cells[["task", "utd", "model_size"]]
        alive = keys[np.isfinite(point)].drop_duplicates().sort_values(["task", "utd", "model_size"])
        alive = alive.reset_index(drop=True)
        index = keys.merge(alive.assign(group=alive.index), how="left", on=list(keys.columns))["group"]
        return alive, index.fillna(-1).astype(int).to_numpy()

    @staticmethod
    def _levels(cells: pd.DataFrame, group: np.ndarray, name: str) -> int:
        if name not in cells or cells[name].isna().any():
            return 0
        return int(cells.groupby(group)[name].nunique().max()) if len(cells) else 0

    def _design(self, cells: pd.DataFrame, group: np.ndarray) -> np.ndarray:
        """(n, p) columns: group intercepts, squares, product, task slopes, slopes in ln sigma and ln N."""
        z = np.log(cells[self.swept_].to_numpy(dtype=float)).reshape(len(cells), -1)
        self._centre = z.mean(axis=0)
        z = z - self._centre
        sigma, size = np.log(cells["utd"].to_numpy(dtype=float)), np.log(cells["model_size"].to_numpy(dtype=float))
        self._sigma0 = float(sigma.mean())
        self._size0 = float(np.nan_to_num(np.nanmean(size))) if np.isfinite(size).any() else 0.0
        self.sized_ = bool(cells.groupby("task")["model_size"].nunique().max() > 1)
        columns: list[np.ndarray] = [np.eye(len(self.groups_))[group]]
        self._slices: dict[str, slice] = {}
        self._own = bool(self.swept_) and len(self.tasks_) > 1  # whether tasks may have slopes of their own
        start = len(self.groups_)

        def add(name: str, block: np.ndarray) -> None:
            nonlocal start
            columns.append(block)
            self._slices[name] = slice(start, start + block.shape[1])
            start += block.shape[1]

        tasks = (cells["task"].to_numpy()[:, None] == np.array(self.tasks_, dtype=object)[None]).astype(float)
        d = len(self.swept_)
        if d:
            add("square", z**2)
            pairs = itertools.combinations(range(d), 2) if self.interaction else ()
            self._pairs = [pair for pair in pairs if _crossed(z[:, pair], group)]
            if self._pairs:
                add("product", np.stack([z[:, i] * z[:, j] for i, j in self._pairs], axis=1))
            for k in range(d):
                add(f"task{k}", tasks * z[:, k : k + 1])
            moved = z * (sigma - self._sigma0)[:, None]
            add("sigma", moved)
            for k in range(d if self._own else 0):
                add(f"own{k}", tasks * moved[:, k : k + 1])
            if self.sized_:
                add("size", z * (size - self._size0)[:, None])
        return np.concatenate(columns, axis=1)

    def _tobit(self, design: np.ndarray, log_steps: np.ndarray, limits: np.ndarray, weights: np.ndarray):
        """EM over all samples at once. Returns (R, p) coefficients, (R,) residual sd, (p, p) covariance at sample 0."""
        scaled = design * weights[:, None]
        censored = np.isinf(log_steps)
        values = start_censored(log_steps, limits)
        self.ridge_, whole = self._choose_ridge(scaled, values[0] * weights)
        inverse = whole[:, : len(design)]
        freedom = max(1.0, len(design) - float(np.einsum("np,pn->", scaled, inverse)))
        coefficients = (values * weights) @ inverse.T
        variance = np.zeros(len(log_steps))
        for _ in range(self.iterations if censored.any() else 1):
            mean = coefficients @ design.T
            spread = np.where(censored, variance[:, None] * 0.5, 0.0)  # what imputing by a mean hides, roughly
            variance = ((((values - mean) * weights) ** 2).sum(axis=1) + spread.sum(axis=1)) / freedom
            if not censored.any():
                break
            values = impute_censored(log_steps, limits, mean, np.sqrt(variance)[:, None] / weights)
            coefficients = (values * weights) @ inverse.T
        return coefficients, np.sqrt(variance), variance[0] * whole @ whole.T

    def _choose_ridge(self, scaled: np.ndarray, values: np.ndarray) -> tuple[float, np.ndarray]:
        """How much tasks' own slopes are held back, by restricted likelihood; the inverse of the widened design.

        Ridge regression as least squares with a row of its own for each penalised column.
        """
        own = [c for k in range(len(self.swept_) if self._own else 0)
               for c in range(self._slices[f"own{k}"].start, self._slices[f"own{k}"].stop)]  # fmt: skip
        best = np.inf, 0.0, scaled
        fixed = np.linalg.matrix_rank(np.delete(scaled, own, axis=1))
        for ridge in RIDGES if own else [0.0]:
            wide = np.concatenate([scaled, np.sqrt(ridge) * np.eye(scaled.shape[1])[own]])
            solution = np.linalg.lstsq(wide, np.append(values, np.zeros(len(own))), rcond=1e-9)[0]
            left = float(((np.append(values, np.zeros(len(own))) - wide @ solution) ** 2).sum())
            singular = np.linalg.svd(wide, compute_uv=False)
            singular = singular[singular > 1e-9 * singular[0]]
            score = max(1, len(scaled) - fixed) * np.log(left + 1e-12) + 2 * np.log(singular).sum()
            score -= len(own) * np.log(max(ridge, 1e-12))
            if score < best[0]:
                best = score, float(ridge), wide
        return best[1], np.linalg.pinv(best[2], rcond=1e-9)

    def _solve(self, cells: pd.DataFrame, group: np.ndarray, covariance: np.ndarray) -> None:
        """From coefficients to the bottom of the bowl, the exponents and ln D at the bottom."""
        beta, _count, d = self.coefficients_, len(self.coefficients_), len(self.swept_)
        self.exponent_, self.task_exponent_, self.size_exponent_, self.log_best_ = {}, {}, {}, {}
        self.log_data_ = beta[:, : len(self.groups_)].copy()
        self.determined_ = {}
        self.edge_ = pd.DataFrame()
        if not d:
            return
        parts = [self._slices["square"].start + k for k in range(d)]
        parts += [self._slices["product"].start + k for k in range(len(self._pairs))]
        basis = np.zeros((len(parts), d, d))  # each column's second derivative
        basis[np.arange(d), np.arange(d), np.arange(d)] = 2.0
        for k, (i, j) in enumerate(self._pairs):
            basis[d + k, i, j] = basis[d + k, j, i] = 1.0
        hessian = np.einsum("rk,kij->rij", beta[:, parts], basis)
        cov = covariance[np.ix_(parts, parts)]
        eigen, vectors = np.linalg.eigh(hessian)
        along = np.einsum("rie,kij,rje->rek", vectors, basis, vectors)
        floor = np.sqrt(np.maximum(np.einsum("rek,kl,rel->re", along, cov, along), 1e-18))
        bounded = np.einsum("rie,re,rje->rij", vectors, np.maximum(eigen, floor), vectors)
        if self.correct_bias:  # E[1/q^] is larger than 1/q: to first order 1/(q + var/q) is unbiased
            bounded = bounded + np.einsum("kl,kab,rbc,lcd->rad", cov, basis, np.linalg.inv(bounded), basis)
        self.hessian_ = hessian
        inverse = np.linalg.inv(bounded)
        # curvature along one axis with the other at its best is 1 / (H^-1)_kk = u'Hu; its variance by the delta method
        along = inverse[0] / np.diagonal(inverse[0])
        bend = np.einsum("ik,ij,jk->k", along, hessian[0], along)
        maps = np.einsum("ik,pij,jk->kp", along, basis, along)
        self.curvature_t_ = bend / np.sqrt(np.maximum(np.einsum("kp,pq,kq->k", maps, cov, maps), 1e-18))
        tilt = np.repeat(beta[:, None, self._slices["sigma"]], len(self.tasks_), axis=1)  # (R, tasks, d)
        if self._own:
            tilt = tilt + np.stack([beta[:, self._slices[f"own{k}"]] for k in range(d)], axis=-1)
        slope = np.einsum("rij,rtj->rti", inverse, tilt)
        size_slope = np.zeros_like(slope[:, 0])
        if self.sized_:
            size_slope = np.einsum("rij,rj->ri", inverse, beta[:, self._slices["size"]])
        linear = np.stack([beta[:, self._slices[f"task{k}"]] for k in range(d)], axis=-1)  # (R, tasks, d)
        bottom = -np.einsum("rij,rtj->rti", inverse, linear)  # at mean ln sigma, mean ln N, centred z
        for k, name in enumerate(self.swept_):
            self.exponent_[name], self.task_exponent_[name] = slope[:, :, k].mean(axis=1), slope[:, :, k]
            self.size_exponent_[name] = -size_slope[:, k]
            best = bottom[:, :, k] + self._centre[k] + slope[:, :, k] * self._sigma0
            swept = [cells.loc[cells["task"] == t].groupby(group[cells["task"] == t])[name].nunique().max() > 1
                     for t in self.tasks_]  # fmt: skip
            self.log_best_[name] = np.where(np.array(swept)[None], best, np.nan)
            self.determined_[name] = bool(self.curvature_t_[k] >= 2)
        # ln D at the bottom, the bottom held within half a grid step of the grid
        task_of = np.array([self.tasks_.index(t) for t in self.groups_["task"]])
        sigma = np.log(self.groups_["utd"].to_numpy(dtype=float)) - self._sigma0
        size = np.nan_to_num(np.log(self.groups_["model_size"].to_numpy(dtype=float)) - self._size0)
        free = bottom[:, task_of] - slope[:, task_of] * sigma[None, :, None]
        free = free - size_slope[:, None] * size[None, :, None]
        low, high, step = self._ranges(cells, group)
        lowest, highest = low - 0.5 * step, high + 0.5 * step
        ends = lowest.min(axis=0) + self._centre, highest.max(axis=0) + self._centre
        self.log_range_ = {name: (float(ends[0][k]), float(ends[1][k])) for k, name in enumerate(self.swept_)}
        held = np.clip(free, lowest[None], highest[None])
        gradient = linear[:, task_of] + tilt[:, task_of] * sigma[None, :, None]
        if self.sized_:
            gradient = gradient + beta[:, None, self._slices["size"]] * size[None, :, None]
        if self.correct_bias:  # the lowest point of a noisy bowl looks lower than it is, by tr(H^-1 cov(gradient)) / 2
            excess = self._gradient_excess(covariance, task_of, sigma, size, inverse)
            # A cell on its own was put where someone thought the bottom was, often by this very fit: leave it alone.
            several = np.bincount(group, minlength=len(self.groups_)) > 1
            self.log_data_ += np.where((held == free).all(axis=2) & several[None], excess, 0.0)
        self.log_data_ += np.einsum("rgi,rgi->rg", held, gradient)
        self.log_data_ += 0.5 * np.einsum("rgi,rij,rgj->rg", held, hessian, held)
        self._edges(free[0], low, high, step)
        self._shapes(covariance, task_of, sigma, low, high)

    def _gradient_excess(self, covariance, task_of, sigma, size, inverse) -> np.ndarray:
        """(R, groups) tr(H^-1 cov(gradient)) / 2 of each group's gradient at the centre."""
        d = len(self.swept_)
        maps = np.zeros((len(task_of), d, len(covariance)))
        groups = np.arange(len(task_of))
        for k in range(d):
            maps[groups, k, self._slices[f"task{k}"].start + task_of] = 1.0
            maps[groups, k, self._slices["sigma"].start + k] = sigma
            if self._own:
                maps[groups, k, self._slices[f"own{k}"].start + task_of] = sigma
            if self.sized_:
                maps[groups, k, self._slices["size"].start + k] = size
        spread = np.einsum("gip,pq,gjq->gij", maps, covariance, maps, optimize=True)
        return 0.5 * np.einsum("rij,gji->rg", inverse, spread)

    def _ranges(self, cells: pd.DataFrame, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(groups, d) lowest and highest centred ln value run in the group's task, and the grid step."""
        z = np.log(cells[self.swept_].to_numpy(dtype=float)) - self._centre
        low, high, step = (np.zeros((len(self.groups_), len(self.swept_))) for _ in range(3))
        for g, task in enumerate(self.groups_["task"]):
            mine = z[(cells["task"] == task).to_numpy()]
            low[g], high[g] = mine.min(axis=0), mine.max(axis=0)
            for k in range(mine.shape[1]):
                gaps = np.diff(np.unique(np.round(z[group == g, k], 9)))
                step[g, k] = gaps.mean() if len(gaps) else 0.0
        return low, high, step

    def _edges(self, free: np.ndarray, low: np.ndarray, high: np.ndarray, step: np.ndarray) -> None:
        rows = []
        for k, name in enumerate(self.swept_):
            rows.append(self.groups_.assign(
                hyperparameter=name, best=np.exp(free[:, k] + self._centre[k]),
                lowest=np.exp(low[:, k] + self._centre[k]), highest=np.exp(high[:, k] + self._centre[k]),
                at_edge=(step[:, k] > 0) & ((free[:, k] <= low[:, k]) | (free[:, k] >= high[:, k])),
            ))  # fmt: skip
        self.edge_ = pd.concat(rows, ignore_index=True)

    def _shapes(self, covariance: np.ndarray, task_of: np.ndarray, sigma: np.ndarray, low, high) -> None:
        """Along each hyperparameter, the others in the middle: the mean over groups of ln D at both ends of the grid
        less that in the middle, in standard errors and in size."""
        self.shape_ = {}
        for k, name in enumerate(self.swept_):
            rows = []
            for end in (low[:, k], high[:, k]):
                middle = (low[:, k] + high[:, k]) / 2
                row = np.zeros(len(covariance))
                row[self._slices["square"].start + k] = (end**2 - middle**2).mean()
                np.add.at(row, self._slices[f"task{k}"].start + task_of, (end - middle) / len(end))
                row[self._slices["sigma"].start + k] = ((end - middle) * sigma).mean()
                if self._own:
                    np.add.at(row, self._slices[f"own{k}"].start + task_of, (end - middle) * sigma / len(end))
                rows.append(row)
            down, up = rows
            across = up - down
            change = float(across @ self.coefficients_[0]) / np.sqrt(max(across @ covariance @ across, 1e-18))
            bounds = [abs(row @ self.coefficients_[0]) + SURE * np.sqrt(max(row @ covariance @ row, 0.0))
                      for row in (down, up, across)]  # fmt: skip
            edge = self.edge_[self.edge_["hyperparameter"] == name]
            if self.determined_[name] and edge["at_edge"].mean() <= 0.5:
                self.shape_[name] = "bowl"
            elif max(bounds) <= SMALL:
                self.shape_[name] = "flat"
            elif abs(change) >= SURE:
                self.shape_[name] = "larger is better" if change < 0 else "smaller is better"
            else:
                self.shape_[name] = "unclear"

    def best_samples(self, name: str, task: str, utd: np.ndarray, model_size: float | None = None) -> np.ndarray:
        """(R, len(utd)) best value of a hyperparameter."""
        log_utd = np.log(np.atleast_1d(np.asarray(utd, dtype=float)))
        at = [self.tasks_.index(task)]
        out = self.log_best_[name][:, at] - self.task_exponent_[name][:, at] * log_utd[None]
        if self.sized_ and model_size is not None:
            out = out + self.size_exponent_[name][:, None] * (np.log(model_size) - self._size0)
        return np.exp(out)

    def chosen_samples(self, name: str, task: str, utd: np.ndarray) -> np.ndarray:
        """(R, len(utd)) what to run: the best value, within the grid where the sweep does not determine it."""
        best = self.best_samples(name, task, utd)
        return best if self.determined_[name] else np.clip(best, *np.exp(self.log_range_[name]))

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The best of each for rows of task, utd (and model_size): the point estimate."""
        out = table.copy()
        for name in self.swept_:
            out[f"best_{name}"] = [
                self.best_samples(name, row["task"], row["utd"], row.get("model_size"))[0, 0]
                for _, row in table.iterrows()
            ]
        return out

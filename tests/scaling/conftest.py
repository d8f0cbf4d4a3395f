"""Shared builders: synthetic curves, and where the public data lie."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Callable

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
THRESHOLDS = 1000 - np.geomspace(700, 200, 10)  # of the authors' fitted runs


@pytest.fixture(scope="session")
def public_data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"public curves are not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def gym(public_data) -> pd.DataFrame:
    """The authors' gym curves on their scale of 1000."""
    from scaling.curves.read import read_curves
    from scaling.curves.table import normalise

    curves = read_curves(public_data / "gym_sac_curves.csv.gz")
    return normalise(curves, str(public_data / "gym_sac_scales.csv"))[0].table


@pytest.fixture
def small_curves() -> pd.DataFrame:
    """One task, four ratios, 3 x 3 hyperparameters, four seeds, mild noise: 144 short runs."""
    from scaling.study.synthetic import LOW, Truth, sweep

    truth = Truth(tasks={"A": (1e5, 410.0, 2e-4)})
    return sweep(truth, LOW, np.random.default_rng(0), seeds=4, points=100)


@pytest.fixture(scope="session")
def script() -> Callable[..., int]:
    """`script(name, *words)` runs scripts/<name>.py in this process; its exit status."""
    from scaling.cli import main

    def run(name: str, *words: str) -> int:
        spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return main(module.Options, f"scripts/{name}.py", module.__doc__, module.run, words)

    return run

"""Small designs with every kind of random term, as dense matrices and as the engine takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from sc_lmm._design import build_design
from sc_lmm._statistics import SufficientStatistics, sufficient_statistics

# Grouping, random columns, whether they correlate.
KINDS = {
    "intercept": [("donor", ["Intercept"], True)],
    "crossed": [("donor", ["Intercept"], True), ("batch", ["Intercept"], True)],
    "nested": [("donor", ["Intercept"], True), ("sample", ["Intercept"], True)],
    "nested and crossed": [
        ("donor", ["Intercept"], True),
        ("sample", ["Intercept"], True),
        ("batch", ["Intercept"], True),
    ],
    "slope": [("donor", ["Intercept", "x"], True)],
    "uncorrelated slope": [("donor", ["Intercept", "x"], False)],
    "slope alone": [("donor", ["x"], True)],
    "terms on one grouping": [("donor", ["Intercept"], True), ("donor", ["x", "z"], True)],
    "slope and crossed": [("donor", ["Intercept", "x"], True), ("batch", ["Intercept"], True)],
    "slopes in nested": [("donor", ["Intercept", "x"], True), ("sample", ["Intercept", "x"], True)],
    "slopes in crossed": [("donor", ["Intercept", "x"], True), ("batch", ["Intercept", "z"], False)],
    "three columns": [("donor", ["Intercept", "x", "z"], True), ("batch", ["Intercept"], True)],
}


@dataclass(frozen=True)
class Cells:
    """Annotations of n cells, and expression of G genes."""

    codes: dict[str, np.ndarray]  # grouping -> (n,)
    values: dict[str, np.ndarray]  # column -> (n,)
    X: np.ndarray  # (n, p)
    Y: np.ndarray  # (n, G)

    def take(self, index: np.ndarray) -> Cells:
        parts = ({name: array[index] for name, array in part.items()} for part in (self.codes, self.values))
        return Cells(*parts, self.X[index], self.Y[index])

    @property
    def obs(self) -> pd.DataFrame:
        numbers = {"x": self.values["x"], "z": self.values["z"], "covariate": self.X[:, 1], "age": self.X[:, 2]}
        return pd.DataFrame({**{name: codes.astype(str) for name, codes in self.codes.items()}, **numbers})

    def statistics(self, kind: list) -> SufficientStatistics:
        """Statistics of a model; that of one random intercept without the short cut that the package takes."""
        if [columns for _, columns, _ in kind] != [["Intercept"]]:
            return sufficient_statistics(self.Y, build_design(formula(kind), self.obs), show_progress=False)
        other = next(name for name in self.codes if name != kind[0][0])
        stats = self.statistics([*kind, (other, ["Intercept"], True)])
        return replace(stats, groupings=stats.groupings[:1])

    def Z(self, kind: list) -> dict[str, np.ndarray]:
        """Dense columns of each grouping in the user's columns, level by level, (n, m r)."""
        of_grouping: dict[str, list[np.ndarray]] = {}
        for name, columns, _ in kind:
            of_grouping.setdefault(name, []).extend(self.values[column] for column in columns)
        dense = {}
        for name, columns in of_grouping.items():
            indicator = (self.codes[name][:, None] == np.arange(self.codes[name].max() + 1)).astype(float)
            dense[name] = (indicator[:, :, None] * np.column_stack(columns)[:, None, :]).reshape(len(indicator), -1)
        return dense


def formula(kind: list) -> str:
    """The model of two fixed columns and these random terms."""
    return "~ covariate + age + " + " + ".join(
        f"({' + '.join([*([] if 'Intercept' in columns else ['0']), *columns]).replace('Intercept', '1')} "
        f"{'|' if correlated else '||'} {name})"
        for name, columns, correlated in kind
    )


def draw_cells(seed: int, n: int = 240, n_genes: int = 4) -> Cells:
    """Eight donors with two samples each, five batches that cross them; genes differ between all levels."""
    rng = np.random.default_rng(seed)
    donor = rng.permutation(np.concatenate([np.arange(8), rng.integers(0, 8, n - 8)]))
    sample = donor * 2 + rng.permutation(n) % 2
    codes = {"donor": donor, "sample": np.unique(sample, return_inverse=True)[1], "batch": rng.integers(0, 5, n)}
    values = {"Intercept": np.ones(n), "x": rng.normal(3, 2, n), "z": rng.normal(0, 1, n)}
    X = np.column_stack([np.ones(n), values["x"], rng.normal(70, 8, 8)[donor]])
    Y = 2 + rng.normal(0, 1, (n, n_genes)) + X[:, [1]] * rng.normal(0, 0.3, n_genes)
    for name, scale in (("donor", 0.8), ("sample", 0.4), ("batch", 0.6)):
        Y += scale * rng.normal(0, 1, (codes[name].max() + 1, n_genes))[codes[name]]
    Y += values["x"][:, None] * rng.normal(0, 0.3, (8, n_genes))[donor]
    return Cells(codes, values, X, Y)


def draw_phi(stats: SufficientStatistics, groupings: tuple, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Entries of some Gamma in standardised columns, and Gamma of each grouping in the user's."""
    rng = np.random.default_rng(seed)
    phi, gammas = [], {}
    for grouping in groupings:
        gamma = np.zeros((grouping.r, grouping.r))
        for block in grouping.blocks:
            width = block.stop - block.start
            A = rng.normal(0, 0.5, (width, width))
            gamma[block, block] = A @ A.T
        phi += [gamma[a, b] for a, b in grouping.pairs]
        gammas[grouping.name] = grouping.basis @ gamma @ grouping.basis.T
    return np.array(phi), gammas


@pytest.fixture(params=KINDS)
def kind(request) -> list:
    return KINDS[request.param]


@pytest.fixture(scope="session")
def make_cells():
    return draw_cells


@pytest.fixture(scope="session")
def make_phi():
    return draw_phi

"""Textbook data sets with crossed, nested and sloped random terms against lme4, lmerTest and pbkrtest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sc_lmm._inference.term_tests import contrast_of, term_kenward_roger, term_satterthwaite
from sc_lmm._model import STATUS, fit_terms, structure
from sc_lmm._statistics import Term, term_statistics

HERE = Path(__file__).parents[1] / "reference" / "classic"
LEVELS = json.loads((HERE / "levels.json").read_text())
FITS = json.loads((HERE / "fits.json").read_text())

# The random terms of each formula: grouping (columns joined by ":"), random columns, whether they correlate.
TERMS = {
    "(1 | Batch)": [("Batch", ["1"], True)],
    "(1 | Worker / Machine)": [("Worker", ["1"], True), ("Machine:Worker", ["1"], True)],
    "(1 | Block / Variety)": [("Block", ["1"], True), ("Variety:Block", ["1"], True)],
    "(1 | batch / cask)": [("batch", ["1"], True), ("cask:batch", ["1"], True)],
    "(1 | batch) + (1 | sample)": [("batch", ["1"], True), ("sample", ["1"], True)],
    "(1 | sample)": [("sample", ["1"], True)],
    "(1 | plate) + (1 | sample)": [("plate", ["1"], True), ("sample", ["1"], True)],
    "(0 + Days | Subject)": [("Subject", ["Days"], True)],
    "(1 | Subject)": [("Subject", ["1"], True)],
    "(Days | Subject)": [("Subject", ["1", "Days"], True)],
    "(Days || Subject)": [("Subject", ["1", "Days"], False)],
}


def fixed_columns(data: pd.DataFrame, reference: dict, levels: dict[str, list[str]]) -> np.ndarray:
    """Columns by the names of R: treatment contrasts of factors, numbers as they are, products for ":"."""

    def column(name: str) -> np.ndarray:
        if name == "(Intercept)":
            return np.ones(len(data))
        if ":" in name:
            return np.prod([column(part) for part in name.split(":")], axis=0)
        if name in data:
            return data[name].to_numpy(float)
        factor = next(f for f in levels if name.startswith(f) and name[len(f) :] in levels[f])
        return (data[factor] == name[len(factor) :]).to_numpy(float)

    return np.column_stack([column(name) for name in reference["coef"]])


def random_terms(data: pd.DataFrame, formula: str) -> list[Term]:
    random = next(text for text in sorted(TERMS, key=len, reverse=True) if formula.endswith(text))
    terms = []
    for name, columns, correlated in TERMS[random]:
        labels = data[name.split(":")].astype(str).agg(":".join, axis=1)
        codes, levels = pd.factorize(labels, sort=True)
        values = [np.ones(len(data)) if c == "1" else data[c].to_numpy(float) for c in columns]
        terms.append(
            Term(name, codes.astype(np.int32), len(levels), np.column_stack(values), tuple(columns), correlated)
        )
    return terms


@pytest.fixture(params=FITS, ids=lambda r: f"{r['data'][:-4]} {r['formula'].partition('~')[2].strip()} {r['method']}")
def case(request):
    reference = request.param
    name = reference["data"][:-4]
    factors = LEVELS[name]
    data = pd.read_csv(HERE / reference["data"], dtype=dict.fromkeys(factors, str))
    X = fixed_columns(data, reference, factors)
    Q, R = np.linalg.qr(X)
    response = reference["formula"].split("~")[0].strip()
    stats = term_statistics(
        data[[response]].to_numpy(float),
        Q,
        random_terms(data, reference["formula"]),
        basis=np.linalg.inv(R),
        ones=Q.T @ np.ones(len(data)),
    )
    (fit,) = fit_terms([stats], list(reference["coef"]), reml=reference["method"] == "REML")
    return reference, stats, fit


def test_criterion_is_not_above(case):
    reference, _, fit = case
    assert fit.deviance[0] <= reference["criterion"] + 1e-6
    np.testing.assert_allclose(fit.deviance[0], reference["criterion"], rtol=0, atol=1e-6)
    assert STATUS[fit.status[0]] == ("boundary" if reference["singular"] else "ok")


def test_estimates(case):
    reference, _, fit = case
    coef, se = (np.array(list(reference[name].values())) for name in ("coef", "se"))
    np.testing.assert_allclose((fit.beta[0] - coef) / se, 0, atol=1e-5)
    np.testing.assert_allclose(fit.se[0] / se, 1, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(fit.sigma2[0]), reference["sigma"], rtol=1e-6)


def test_covariances_of_random_coefficients(case):
    reference, _, fit = case
    for entry in reference["varcomp"][:-1]:
        if entry["var2"] is not None:
            continue
        grouping = next(
            g for g in fit.groupings if sorted(g.name.split(":")) == sorted(entry["grp"].removesuffix(".1").split(":"))
        )
        column = grouping.column_names.index(entry["var1"].replace("(Intercept)", "1"))
        sd = fit.sd(grouping.name)[0, column]
        np.testing.assert_allclose(sd, entry["sdcor"], rtol=1e-5, atol=1e-5 * reference["sigma"])


def test_degrees_of_freedom(case):
    reference, stats, fit = case
    if reference["method"] == "ML":
        pytest.skip("degrees of freedom are of restricted estimates")
    design = structure(stats)
    for i, name in enumerate(reference["coef"]):
        contrast = contrast_of(stats, design, fit, np.eye(len(reference["coef"]))[[i]])
        kr = term_kenward_roger(contrast)
        np.testing.assert_allclose(kr.df[0], reference["kenward_roger"]["df"][name], rtol=1e-5)
        np.testing.assert_allclose(np.sqrt(kr.vcov[0, 0, 0]), reference["kenward_roger"]["se"][name], rtol=1e-5)
        if not reference["singular"]:  # where lmerTest gives n - p, an artefact
            np.testing.assert_allclose(
                term_satterthwaite(contrast).df[0], reference["satterthwaite"]["df"][name], rtol=1e-5
            )

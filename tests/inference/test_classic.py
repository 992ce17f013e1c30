"""Textbook data sets with crossed, nested and sloped random terms against lme4, lmerTest and pbkrtest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sc_lmm._design import build_design
from sc_lmm._inference.term_tests import contrast_of, term_kenward_roger, term_satterthwaite
from sc_lmm._model import STATUS, fit_terms, structure
from sc_lmm._statistics import sufficient_statistics

HERE = Path(__file__).parents[1] / "reference" / "classic"
LEVELS = json.loads((HERE / "levels.json").read_text())
FITS = json.loads((HERE / "fits.json").read_text())


def coded(data: pd.DataFrame, levels: dict[str, list[str]]) -> pd.DataFrame:
    """Factors with the levels of R, in their order."""
    return data.assign(**{name: pd.Categorical(data[name], order) for name, order in levels.items()})


@pytest.fixture(params=FITS, ids=lambda r: f"{r['data'][:-4]} {r['formula'].partition('~')[2].strip()} {r['method']}")
def case(request):
    reference = request.param
    name = reference["data"][:-4]
    data = pd.read_csv(HERE / reference["data"], dtype=dict.fromkeys(LEVELS[name], str))
    obs = coded(data, LEVELS[name])
    response, _, terms = reference["formula"].partition("~")
    stats = statistics(data[[response.strip()]].to_numpy(float), terms, obs)
    (fit,) = fit_terms([stats], list(reference["coef"]), reml=reference["method"] == "REML")
    return reference, stats, fit


def statistics(Y: np.ndarray, terms: str, obs: pd.DataFrame):
    """Statistics; of one random intercept without the short cut that the package takes."""
    design = build_design(f"~ {terms}", obs)
    if design.effects:
        return sufficient_statistics(Y, design, show_progress=False)
    obs = obs.assign(other=np.arange(len(obs)) % 3)
    stats = sufficient_statistics(Y, build_design(f"~ {terms} + (1 | other)", obs), show_progress=False)
    return replace(stats, groupings=stats.groupings[:1])


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
        column = grouping.column_names.index(entry["var1"].replace("(Intercept)", "Intercept"))
        sd = fit.sd(grouping)[0, column]
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

"""Every gene against lme4, and the public call against the same values."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import statsmodels.regression.tests.results as lmer_results

import sc_lmm as sl
from sc_lmm._design.hypothesis import term_hypotheses
from sc_lmm._design.model_matrix import build_design
from sc_lmm._inference.tests import likelihood_ratio
from sc_lmm._model.fit import fit_models
from sc_lmm._statistics import null_model, sufficient_statistics

HERE = Path(__file__).parents[1] / "reference"
SHARED = Path(__file__).parents[3] / "shared" / "reference"
SATURATION = "~ sequencing_saturation + diagnosis + (1 | sample_id)"
LIBSIZE = "~ log_libsize + sex + age + diagnosis + (1 | sample_id)"
CASES = {
    "S60sub": (SATURATION, "diagnosis"),
    "C60": (LIBSIZE, "diagnosis"),
    "C60sub": (LIBSIZE, "diagnosis"),
    "X_factor3": ("~ x + group3 + (1 | sample_id)", "group3"),
    "S60": (SATURATION, "diagnosis"),
    "K60_all": ("~ log_libsize + group_id + (1 | sample_id)", "group_id"),
    "K60_mono": ("~ log_libsize + group_id + (1 | sample_id)", "group_id"),
}


def load(name: str) -> tuple[ad.AnnData, pd.DataFrame]:
    folder = HERE if (HERE / f"{name}.h5ad").exists() else SHARED
    if not (folder / f"{name}.h5ad").exists():
        pytest.skip(f"{name}.h5ad stays outside the project (size, or real data) and is not here")
    adata = ad.read_h5ad(folder / f"{name}.h5ad")
    reference = pd.read_csv(folder / f"ref_{name}_lme4.csv", index_col=0)
    return adata, reference.loc[adata.var_names]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    adata, reference = load(request.param)
    formula, test = CASES[request.param]
    design = build_design(formula, adata.obs)
    stats = sufficient_statistics(adata.X, design)
    hypothesis = term_hypotheses(design.coding, test)[0]
    full, null = fit_models([stats, null_model(stats, hypothesis)], design.coef_names)
    (reml,) = fit_models([stats], design.coef_names, reml=True)
    return reference, full, null, reml, hypothesis


@pytest.mark.parametrize("prefix", ["ML", "ML0", "REML"])
def test_loglik(case, prefix):
    reference, full, null, reml, _ = case
    ours = {"ML": full, "ML0": null, "REML": reml}[prefix]
    # lme4 is an optimiser too: higher is right. Its values are printed to 1e-6 or better.
    assert (ours.loglik - reference[f"{prefix}_logLik"] > -1e-6).all()
    np.testing.assert_allclose(ours.loglik, reference[f"{prefix}_logLik"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours.rho == 0, reference[f"{prefix}_singular"])


@pytest.mark.parametrize("prefix", ["ML", "REML"])
def test_estimates(case, prefix):
    reference, full, _, reml, _ = case
    ours = {"ML": full, "REML": reml}[prefix]
    betas = [c for c in reference if c.startswith(f"{prefix}_beta_")]
    ses = [c.replace("_beta_", "_se_") for c in betas]
    se = reference[ses].to_numpy()
    np.testing.assert_allclose((ours.beta - reference[betas].to_numpy()) / se, 0, atol=1e-5)
    np.testing.assert_allclose(ours.se / se, 1, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(ours.sigma2), reference[f"{prefix}_sigma"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(ours.rho), reference[f"{prefix}_theta1"], atol=1e-5)


def test_likelihood_ratio(case):
    reference, full, null, _, hypothesis = case
    test = likelihood_ratio(full, null, hypothesis)
    np.testing.assert_allclose(test.stat, reference["LRT_chi2"], atol=1e-5)
    np.testing.assert_allclose(test.pval, reference["LRT_p"], atol=1e-6)
    assert (test.df == reference["LRT_df"]).all()


def test_public_call_gives_what_lme4_prints():
    adata, reference = load("S60sub")
    with pytest.warns(sl.LmmWarning, match="negative values"):
        sl.tl.lmm_de(adata, "gene_expression " + SATURATION, test="diagnosis")
    table = sl.get.lmm_de_df(adata, sort=False).set_index("names")
    np.testing.assert_allclose(table["coef"], reference["ML_beta_diagnosis"], atol=1e-6)
    np.testing.assert_allclose(table["lrt"], reference["LRT_chi2"], atol=1e-5)
    np.testing.assert_allclose(table["pvals_chi2"], reference["LRT_p"], atol=1e-6)
    np.testing.assert_allclose(table["sd_sample_id"], reference["ML_sdcor_sample_id_Intercept"], atol=1e-6)
    np.testing.assert_allclose(table["sd_residual"], reference["ML_sigma"], atol=1e-6)
    assert (table["status"] == "boundary").to_numpy().tolist() == reference["ML_singular"].tolist()


def _lmer_datasets() -> list[int]:
    """statsmodels' lmer data sets with one random intercept, a column of ones as the only random effect."""
    folder = Path(next(iter(lmer_results.__path__)))
    found = []
    for path in sorted(folder.glob("lme[0-9]*.csv")):
        data = pd.read_csv(path)
        random = [c for c in data if c.startswith("exog_re")]
        if len(random) == 1 and (data[random[0]] == 1).all():
            found.append(int(path.stem[3:]))
    return found


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("index", _lmer_datasets())
def test_lmer_results_shipped_with_statsmodels(index, reml):
    """Models without an intercept: a constant cannot be absorbed."""
    from statsmodels.regression.tests.results import lme_r_results as lmer

    data = pd.read_csv(Path(next(iter(lmer_results.__path__))) / f"lme{index:02d}.csv")
    fixed = " + ".join(c for c in data if c.startswith("exog_fe"))
    design = build_design(f"~ 0 + {fixed} + (1 | groups)", data)
    stats = sufficient_statistics(data[["endog"]].to_numpy(), design)
    (fit,) = fit_models([stats], design.coef_names, reml=reml)
    suffix = f"{'reml' if reml else 'ml'}_drf_{index}"
    # The file has seven digits, and lmer's default tolerance was looser than ours.
    np.testing.assert_allclose(fit.loglik[0], getattr(lmer, f"loglike_{suffix}")[0], rtol=1e-6)
    np.testing.assert_allclose(fit.beta[0], getattr(lmer, f"coef_{suffix}"), rtol=2e-4)
    np.testing.assert_allclose(fit.vcov[0], getattr(lmer, f"vcov_{suffix}"), rtol=2e-3)
    np.testing.assert_allclose(fit.sigma2[0], getattr(lmer, f"scale_{suffix}")[0], rtol=2e-3)
    np.testing.assert_allclose(fit.sd_random[0] ** 2, getattr(lmer, f"cov_re_{suffix}")[0, 0], rtol=5e-3, atol=1e-6)


def test_there_are_lmer_datasets():
    assert len(_lmer_datasets()) >= 2

"""One gene in 24 samples whose means differ more than the diagnosis does.

Here ``y_c = m_j(c) + 10 d_j(c) + e_c`` for cell c of sample j, and the saturation ``s_c`` is correlated with ``e_c``:
what a model needs to recover the 10 is a random intercept per sample, not more cells.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

_N_DISEASED, _N_HEALTHY, _CELLS_PER_SAMPLE = 11, 13, 1_000
_MEAN, _SAMPLE_SD, _COVARIANCE, _DIAGNOSIS_EFFECT = 3.0, 5.0, 0.5, 10.0


def confounding_example(seed: int = 0) -> AnnData:
    r"""Simulate one gene in 24 samples of 1,000 cells, the textbook case for a random intercept.

    Every sample has its own mean, diagnosis adds 10 in 11 of the 24 samples, and within a sample the expression goes
    along with the sequencing saturation. For cell :math:`c` of sample :math:`j(c)`

    .. math::
        y_c = m_{j(c)} + 10\, d_{j(c)} + e_c, \qquad m_j \sim N(3, 5^2), \qquad
        (e_c,\ s_c - 3) \sim N\!\left(0, \begin{pmatrix} 1 & 0.5 \\ 0.5 & 1 \end{pmatrix}\right)

    Where:

    - :math:`y_c` is the expression and :math:`s_c` the sequencing saturation, both in arbitrary units
    - :math:`m_j` is the mean of sample :math:`j`
    - :math:`d_j` is 1 in a diseased sample and 0 in a healthy one

    Given the saturation and the sample this is the mixed model
    ``gene ~ sequencing_saturation + diagnosis + (1 | sample_id)``, with slope 0.5 for saturation, slope 10 for
    diagnosis, standard deviation 5 between samples and variance 0.75 within.

    Parameters
    ----------
    seed
        Seed of the random numbers; the same seed gives the same data.

    Returns
    -------
    24,000 cells by one gene:

    ``X``
        Expression of ``"gene"``, dense float64, of shape (24000, 1).
    ``obs["sample_id"]``
        Sample of the cell, categorical, ``"sample_01"`` to ``"sample_24"``, 1,000 cells each, in order.
    ``obs["diagnosis"]``
        Categorical, constant within a sample: ``"healthy"`` (first category, 13 samples) or ``"diseased"`` (11).
    ``obs["sequencing_saturation"]``
        Saturation of the cell, mean 3 and variance 1 in every sample.
    ``var``
        The truth: ``diagnosis_effect``, ``sequencing_saturation_effect``, ``sample_sd`` and ``residual_sd``.

    Notes
    -----
    The estimate of the diagnosis slope has a standard error near 2, whatever the number of cells: it rests on 24
    sample means. An analysis that takes the 24,000 cells as independent reports a standard error some 30 times smaller.

    References
    ----------
    Cross Validated, question 593153, https://stats.stackexchange.com/q/593153

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.confounding_example()
    >>> adata.shape
    (24000, 1)
    >>> adata.obs.groupby("diagnosis", observed=True)["sample_id"].nunique().to_dict()
    {'healthy': 13, 'diseased': 11}
    """
    rng = np.random.default_rng(seed)
    n_samples = _N_DISEASED + _N_HEALTHY
    sample = np.repeat(np.arange(n_samples), _CELLS_PER_SAMPLE)
    diseased = rng.permutation(n_samples) < _N_DISEASED
    sample_mean = rng.normal(_MEAN, _SAMPLE_SD, n_samples) + _DIAGNOSIS_EFFECT * diseased
    noise = rng.multivariate_normal([0.0, 0.0], [[1.0, _COVARIANCE], [_COVARIANCE, 1.0]], size=len(sample))
    names = pd.Index([f"sample_{j:02d}" for j in range(1, n_samples + 1)])
    arms = pd.Index(["healthy", "diseased"])
    obs = pd.DataFrame(
        {
            "sample_id": pd.Categorical.from_codes(sample, categories=names),
            "diagnosis": pd.Categorical.from_codes(diseased[sample].astype(int), categories=arms),
            "sequencing_saturation": _MEAN + noise[:, 1],
        },
        index=[f"cell_{c:05d}" for c in range(1, len(sample) + 1)],
    )
    return AnnData((sample_mean[sample] + noise[:, 0])[:, None], obs=obs, var=_truth())


def _truth() -> pd.DataFrame:
    truth = {
        "diagnosis_effect": _DIAGNOSIS_EFFECT,
        "sequencing_saturation_effect": _COVARIANCE,  # covariance / variance of the saturation, which is 1
        "sample_sd": _SAMPLE_SD,
        "residual_sd": np.sqrt(1 - _COVARIANCE**2),
    }
    return pd.DataFrame(truth, index=["gene"])

"""A simulated cohort of single nuclei from the brains of patients and controls, with its truth.

What comes out is an AnnData with raw and log-normalised counts. For gene g, cell c, donor j(c) and cell type t(c):

    y_gc ~ NB(mean = mu_gc, variance = mu_gc + dispersion_g mu_gc^2)
    mu_gc = mean_g depth_c exp(u_gj + v_gt + ln(2) log_fold_change_g (d_j - 1/2)),    u_gj ~ N(0, donor_sd_g^2)

The counts are drawn for one block of genes at a time, each block with its own seed, and only the nonzero ones are
kept: no array of cells by genes exists. A negative binomial count is a Poisson number of clusters, of rate
ln(1 + dispersion mu) / dispersion, whose sizes have the logarithmic distribution (Quenouille 1949, Biometrics 5:162).
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

if TYPE_CHECKING:
    from numpy.random import Generator, SeedSequence
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_CELL_TYPES = pd.Index(["excitatory neuron", "oligodendrocyte", "astrocyte", "inhibitory neuron", "microglia"])
_CELL_TYPE_SHARES = np.array([0.35, 0.25, 0.15, 0.15, 0.10])
_CELL_TYPE_CONCENTRATION = 30.0  # of the Dirichlet distribution of a donor's shares: sd 0.09 at a share of 0.35
_MAX_BATCHES = 4
_DONOR_SIZE_SD, _DONOR_DEPTH_SD, _CELL_DEPTH_SD = 0.6, 0.25, 0.45  # natural log scale
_SHARE_SD = 2.1  # of a gene's log share of the counts: about 8 % nonzero entries with 36,000 genes
_MAX_SHARE = 0.05  # no gene may dominate the normalisation
_PROP_WITHOUT_DONOR_SD = 0.15
_TARGET_SUM = 1e4
_BLOCK_ENTRIES = 2**18  # cells x genes drawn at once; another value would give other random numbers


@dataclass(frozen=True)
class _Cells:
    """Cells of the cohort; ``group`` is donor * number of cell types + cell type."""

    obs: pd.DataFrame
    depth: Floats  # (n_cells,), relative to the median cell
    group: Integers  # (n_cells,)
    arm: Floats  # (n_donors,), +1/2 diseased, -1/2 control


def brain_cohort(
    n_donors: int = 24,
    n_cells: int = 24_000,
    n_genes: int = 2_000,
    *,
    seed: int = 0,
    prop_changed: float = 0.1,
    log_fold_change: tuple[float, float] = (0.25, 1.5),
    donor_sd: float = 0.25,
    cell_type_sd: float = 0.4,
    prop_diseased: float = 0.5,
    library_size: float = 6_000.0,
) -> AnnData:
    r"""Simulate a case-control cohort of single nuclei from the brain, with the truth of each gene.

    Counts are negative binomial, and the cells of one donor share a random effect in each gene. For gene :math:`g`
    in cell :math:`c` of donor :math:`j` and cell type :math:`t`

    .. math::
        y_{gc} &\sim \mathrm{NB}\left(\mu_{gc},\ \mu_{gc} + \phi_g \mu_{gc}^2\right) \\
        \log \mu_{gc} &= \log m_g + \log D_c + u_{gj} + v_{gt} + \log(2)\, \beta_g \left(d_j - \tfrac12\right),
        \qquad u_{gj} \sim N(0, \tau_g^2)

    Where:

    - :math:`y_{gc}` is the count, with its mean and variance
    - :math:`m_g` is the mean count in a cell of median depth, half-way between the two arms
    - :math:`\phi_g` is the dispersion
    - :math:`D_c` is the depth of the cell relative to the median: log-normal, between donors and between cells
    - :math:`u_{gj}` is the effect of the donor, with standard deviation :math:`\tau_g`, 0 in about 15 % of the genes
    - :math:`v_{gt}` is the effect of the cell type, normal with standard deviation ``cell_type_sd``
    - :math:`\beta_g` is the log2 fold change of Alzheimer against control, 0 in every gene that is not changed
    - :math:`d_j` is 1 if the donor is diseased and 0 otherwise

    Parameters
    ----------
    n_donors
        Number of donors, at least 2.
    n_cells
        Number of cells in all, at least one per donor. Donors have unequal (log-normal) numbers of cells.
    n_genes
        Number of genes.
    seed
        Seed of the random numbers; the same seed and arguments give the same data.
    prop_changed
        Share of the genes that change with diagnosis.
    log_fold_change
        Smallest and largest size of a change (log2). Sizes are uniform in between, half of them up and half down.
    donor_sd
        Mean over genes of the standard deviation of the donor effect (natural log scale), before the genes without
        donor variance are set to 0. It differs between genes. 0 removes the effect.
    cell_type_sd
        Standard deviation of the effects of the cell types (natural log scale). 0 removes them.
    prop_diseased
        Share of the donors that are diseased. Each arm has at least one donor.
    library_size
        Median total count of a cell, approximately.

    Returns
    -------
    Cells (in random order) by genes:

    ``X``
        Counts normalised to 10,000 per cell and transformed by log(1 + x), natural logarithm. CSR, float32.
    ``layers["counts"]``
        Counts. CSR, float32.
    ``obs``
        ``sample_id`` (donor, categorical), ``diagnosis`` (categorical, ``"control"`` or ``"Alzheimer"``),
        ``sequencing_saturation`` (in (0, 1), higher in deeper cells, differs between donors), ``age`` (years),
        ``sex`` and ``batch`` (categorical), ``cell_type`` (categorical). All but ``sequencing_saturation`` and
        ``cell_type`` are constant within a donor.
    ``var``
        The truth: ``changed``, ``log_fold_change`` (:math:`\beta_g`), ``donor_sd`` (:math:`\tau_g`), ``dispersion``
        (:math:`\phi_g`) and ``mean`` (:math:`m_g`).
    ``uns["log1p"]``
        The base of the logarithm, as scanpy writes it.

    Notes
    -----
    Genes that are not changed are null for diagnosis, before and after normalisation. Depth, the shares of the cell
    types, age, sex and batch are drawn without regard to diagnosis, and age, sex and batch have no effect. The changes
    compensate one another, so that the expected total count is the same in both arms and normalisation moves no null
    gene; this needs at least two changed genes. As in any cohort, the arms differ by chance in all of these.

    There are up to four batches, and each has donors of both arms.

    The result takes 16 bytes per nonzero count, and its making up to twice that.

    Examples
    --------
    >>> import sc_lmm as sl
    >>> adata = sl.datasets.brain_cohort(n_donors=6, n_cells=300, n_genes=50)
    >>> adata.shape
    (300, 50)
    >>> adata.obs.groupby("diagnosis", observed=True)["sample_id"].nunique().to_dict()
    {'control': 3, 'Alzheimer': 3}
    >>> int(adata.var["changed"].sum())
    5
    """
    _check_sizes(n_donors, n_cells, n_genes)
    _check_shares(prop_changed, prop_diseased)
    _check_scales(log_fold_change, donor_sd, cell_type_sd, library_size)
    cell_seed, gene_seed, count_seed = np.random.SeedSequence(seed).spawn(3)
    cells = _draw_cells(np.random.default_rng(cell_seed), n_donors, n_cells, prop_diseased)
    gene_rng = np.random.default_rng(gene_seed)
    cell_type_effect = gene_rng.normal(0, cell_type_sd, (n_genes, len(_CELL_TYPES)))
    n_changed = round(prop_changed * n_genes)
    var = _draw_genes(gene_rng, cell_type_effect, n_changed, log_fold_change, donor_sd, library_size)
    counts = _draw_counts(count_seed, cells, var, cell_type_effect)
    normalised, uns = _log_normalise(counts), {"log1p": {"base": None}}
    return AnnData(normalised, obs=cells.obs, var=var, uns=uns, layers={"counts": counts})


def _draw_cells(rng: Generator, n_donors: int, n_cells: int, prop_diseased: float) -> _Cells:
    donors = _draw_donors(rng, n_donors, prop_diseased)
    donor = rng.permutation(np.repeat(np.arange(n_donors), _donor_sizes(rng, n_donors, n_cells)))
    cell_type = _draw_cell_types(rng, donor, n_donors)
    log_depth = rng.normal(0, _DONOR_DEPTH_SD, n_donors)[donor] + rng.normal(0, _CELL_DEPTH_SD, n_cells)
    obs = donors.iloc[donor].set_index(pd.Index([f"cell_{c:06d}" for c in range(1, n_cells + 1)]))
    obs.insert(2, "sequencing_saturation", _draw_saturation(rng, log_depth, donor, n_donors))
    obs["cell_type"] = pd.Categorical.from_codes(cell_type, categories=_CELL_TYPES)
    arm = np.where(donors["diagnosis"] == "Alzheimer", 0.5, -0.5)
    return _Cells(obs=obs, depth=np.exp(log_depth), group=donor * len(_CELL_TYPES) + cell_type, arm=arm)


def _draw_donors(rng: Generator, n_donors: int, prop_diseased: float) -> pd.DataFrame:
    n_diseased = min(max(round(prop_diseased * n_donors), 1), n_donors - 1)
    diseased = rng.permutation(n_donors) < n_diseased
    width = max(2, len(str(n_donors)))
    return pd.DataFrame(
        {
            "sample_id": pd.Categorical([f"donor_{j:0{width}d}" for j in range(1, n_donors + 1)]),
            "diagnosis": pd.Categorical.from_codes(diseased.astype(int), categories=pd.Index(["control", "Alzheimer"])),
            "age": np.clip(np.round(rng.normal(76, 8, n_donors)), 50, 100).astype(int),
            "sex": pd.Categorical.from_codes(rng.integers(0, 2, n_donors), categories=pd.Index(["female", "male"])),
            "batch": _draw_batches(rng, diseased),
        }
    )


def _draw_batches(rng: Generator, diseased: NDArray[np.bool_]) -> pd.Categorical[str]:
    """Deal the donors of each arm out to the batches in turn, so that every batch has donors of both arms."""
    smaller_arm = int(min(diseased.sum(), (~diseased).sum()))
    n_batches = max(min(2, smaller_arm), min(_MAX_BATCHES, smaller_arm // 2))
    batch = np.empty(len(diseased), dtype=int)
    for arm in (diseased, ~diseased):
        batch[arm] = rng.permutation(np.arange(arm.sum()) % n_batches)
    return pd.Categorical.from_codes(batch, categories=pd.Index([f"batch_{b}" for b in range(1, n_batches + 1)]))


def _donor_sizes(rng: Generator, n_donors: int, n_cells: int) -> Integers:
    """Log-normal shares of the cells, above a floor of a tenth of the average donor."""
    weight = rng.lognormal(0, _DONOR_SIZE_SD, n_donors)
    floor = max(1, n_cells // (10 * n_donors))
    return floor + rng.multinomial(n_cells - floor * n_donors, weight / weight.sum())


def _draw_cell_types(rng: Generator, donor: Integers, n_donors: int) -> Integers:
    share = rng.dirichlet(_CELL_TYPE_CONCENTRATION * _CELL_TYPE_SHARES, n_donors)
    upper = np.cumsum(share, axis=1)[:, :-1]  # without the last bound, which may round to less than 1
    return np.asarray((rng.random(len(donor))[:, None] > upper[donor]).sum(axis=1))


def _draw_saturation(rng: Generator, log_depth: Floats, donor: Integers, n_donors: int) -> Floats:
    logit = 0.4 + 0.6 * log_depth + rng.normal(0, 0.25, n_donors)[donor] + rng.normal(0, 0.25, len(donor))
    return np.asarray(1 / (1 + np.exp(-logit)))


def _draw_genes(
    rng: Generator,
    cell_type_effect: Floats,
    n_changed: int,
    size: tuple[float, float],
    donor_sd: float,
    library_size: float,
) -> pd.DataFrame:
    """Truth of the genes; in a cell of median depth the expected total count is ``library_size`` in both arms."""
    n_genes = len(cell_type_effect)
    share = rng.lognormal(0, _SHARE_SD, n_genes)
    share = np.minimum(share, _MAX_SHARE * share.sum())
    sd = np.where(rng.random(n_genes) < _PROP_WITHOUT_DONOR_SD, 0.0, rng.gamma(4, donor_sd / 4, n_genes))
    expected = share * np.exp(sd**2 / 2) * (np.exp(cell_type_effect) @ _CELL_TYPE_SHARES)
    change = _draw_changes(rng, expected, n_changed, size)
    compensation = _compensation(expected, change)
    total = np.sum(expected * compensation * np.cosh(np.log(2) * change / 2))
    truth = {
        "changed": change != 0,
        "log_fold_change": change,
        "donor_sd": sd,
        "dispersion": np.clip(rng.lognormal(np.log(0.5), 0.6, n_genes), 0.05, 5),
        "mean": library_size * share * compensation / total,
    }
    return pd.DataFrame(truth, index=[f"GENE{g:05d}" for g in range(1, n_genes + 1)])


def _draw_changes(rng: Generator, expected: Floats, n_changed: int, size: tuple[float, float]) -> Floats:
    """Log2 fold change of every gene, up and down in turn along the expected counts."""
    chosen = rng.choice(len(expected), n_changed, replace=False)
    chosen = chosen[np.argsort(expected[chosen])]
    sign = np.where(np.arange(n_changed) % 2 == rng.integers(2), 1.0, -1.0)
    change = np.zeros(len(expected))
    change[chosen] = sign * rng.uniform(*size, n_changed)
    return change


def _compensation(expected: Floats, change: Floats) -> Floats:
    """Factor on the mean of every gene that makes the expected total count the same in both arms.

    Otherwise a change in a highly expressed gene would, through normalisation, change the null genes too.
    """
    gain = expected * np.sinh(np.log(2) * change / 2)
    up, down = gain[change > 0].sum(), -gain[change < 0].sum()
    if up == 0 or down == 0:
        return np.ones(len(change))
    return np.asarray(np.sqrt(down / up) ** np.sign(change))


def _draw_counts(seed: SeedSequence, cells: _Cells, var: pd.DataFrame, cell_type_effect: Floats) -> sp.csr_matrix:
    width = max(1, _BLOCK_ENTRIES // len(cells.depth))
    starts = range(0, len(var), width)
    blocks = []
    for start, block_seed in zip(starts, seed.spawn(len(starts)), strict=True):
        genes = slice(start, start + width)
        blocks.append(_draw_block(np.random.default_rng(block_seed), cells, var.iloc[genes], cell_type_effect[genes]))
    values, rows, stored = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    del blocks  # half of the memory at this point
    ends = np.concatenate([[0], np.cumsum(stored)])
    return sp.csc_matrix((values, rows, ends), shape=(len(cells.depth), len(var))).tocsr()


def _draw_block(
    rng: Generator, cells: _Cells, var: pd.DataFrame, cell_type_effect: Floats
) -> tuple[NDArray[np.float32], NDArray[np.int32], Integers]:
    """Nonzero counts of a block of genes, their cells, and how many each gene has."""
    mean, dispersion, donor_sd, change = (
        var[name].to_numpy()[:, None] for name in ("mean", "dispersion", "donor_sd", "log_fold_change")
    )
    donor_effect = donor_sd * rng.standard_normal((len(var), len(cells.arm))) + np.log(2) * change * cells.arm
    group_effect = (donor_effect[:, :, None] + cell_type_effect[:, None, :]).reshape(len(var), -1)
    cell_mean = np.take(mean * np.exp(group_effect), cells.group, axis=1)
    cell_mean *= cells.depth
    position, count = _draw_nonzero(rng, cell_mean, dispersion)
    gene, cell = np.divmod(position, len(cells.depth))
    return count.astype(np.float32), cell.astype(np.int32), np.bincount(gene, minlength=len(var))


def _draw_nonzero(rng: Generator, mean: Floats, dispersion: Floats) -> tuple[Integers, Integers]:
    """Flat positions and values of the nonzero entries of a matrix of negative binomial counts.

    The clusters of an entry are the arrivals of a Poisson process until the time ``rate``. If the first arrival comes
    later than that, the count is 0, which one exponential number settles; all further work is for the other entries.
    """
    odds = mean * dispersion
    rate = np.log1p(odds) / dispersion
    left = (rate - rng.standard_exponential(rate.shape)).ravel()
    position = np.flatnonzero(left > 0)
    clusters = 1 + rng.poisson(left[position])
    prob = odds.ravel()[position]
    sizes = rng.logseries(np.repeat(prob / (1 + prob), clusters))
    return position, np.add.reduceat(sizes, np.cumsum(clusters) - clusters)


def _log_normalise(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Counts per 10,000, then log(1 + x); a copy with indices of its own, as either may be changed in place later."""
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    factor = (_TARGET_SUM / np.maximum(total, 1)).astype(np.float32)
    result = counts.copy()
    result.data *= np.repeat(factor, np.diff(counts.indptr))
    np.log1p(result.data, out=result.data)
    return result


def _check_sizes(n_donors: int, n_cells: int, n_genes: int) -> None:
    for name, value, least in (("n_donors", n_donors, 2), ("n_genes", n_genes, 1), ("n_cells", n_cells, n_donors)):
        allowed = f"an integer of at least {least}" + ", the number of donors" * (name == "n_cells")
        _require(name, value, allowed, met=isinstance(value, Integral) and value >= least)


def _check_shares(prop_changed: float, prop_diseased: float) -> None:
    _require("prop_changed", prop_changed, "a share between 0 and 1", met=0 <= prop_changed <= 1)
    _require("prop_diseased", prop_diseased, "a share above 0 and below 1", met=0 < prop_diseased < 1)


def _check_scales(size: tuple[float, float], donor_sd: float, cell_type_sd: float, library_size: float) -> None:
    allowed = "the smallest and the largest change (log2), 0 < smallest <= largest <= 10"
    _require("log_fold_change", size, allowed, met=np.shape(size) == (2,) and 0 < size[0] <= size[1] <= 10)
    for name, sd in (("donor_sd", donor_sd), ("cell_type_sd", cell_type_sd)):
        _require(name, sd, "between 0 and 3 (natural log scale)", met=0 <= sd <= 3)
    _require("library_size", library_size, "between 1 and 1,000,000 counts", met=1 <= library_size <= 1e6)


def _require(argument: str, found: object, allowed: str, *, met: bool) -> None:
    if not met:
        msg = f"{argument} must be {allowed}, found {found!r}."
        raise ValueError(msg)

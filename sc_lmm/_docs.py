"""Paragraphs that several public docstrings share, and the decorator that fills them in."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    F = TypeVar("F", bound=Callable[..., Any])

_PARAMETERS = {
    "adata": """\
adata
    Annotated data, cells x genes, expression log-normalised.""",
    "formula": """\
formula
    lme4's syntax, e.g. ``"gene_expression ~ sequencing_saturation + diagnosis + (1 | sample_id)"``. The response is
    always the expression matrix, so the left-hand side may be anything or absent. ``(1 | donor)`` is a random
    intercept; ``(1 | donor) + (1 | batch)`` are crossed ones, ``(1 | donor/sample)`` nested ones, which is
    ``(1 | donor) + (1 | donor:sample)``; ``(condition | donor)`` lets each donor respond in its own way (random
    slopes, correlated with the intercept; ``||`` for a variance per column and no correlations, ``0 +`` for no
    intercept). The rest is formulaic's grammar with columns of ``adata.obs``, transforms and interactions included.
    Strings and booleans are factors, their first category (in natural order) being the baseline.""",
    "weights": """\
weights
    Weights of the cells: a column of ``adata.obs`` or a transform of one, e.g. ``"np.sqrt(total_counts)"``. A cell of
    weight w has residual variance :math:`\\sigma^2 / w`, as in lme4; ``sd_residual`` is that of a cell of average
    weight. A cell sequenced half as deep tells less of a gene, and weights say so.""",
    "layer": """\
layer
    Layer with the expression. By default ``adata.X``.""",
    "use_raw": """\
use_raw
    Read ``adata.raw`` (for the genes of `adata`).""",
    "mask_var": """\
mask_var
    Genes to use: a boolean per gene (an array in the order of ``adata.var_names``, or a Series with their labels) or the
    name of a boolean column of ``adata.var``. By default all.""",
    "family": """\
family
    ``"gaussian"``: a linear mixed model of log-normalised expression. ``"nb"``: a mixed model of raw counts, Poisson within
    donors with a gamma distributed factor of each donor, for fixed effects that are constant within donors.""",
    "size_factors": """\
size_factors
    For ``family="nb"``: what the counts of a cell are measured by. ``"median-ratio"`` of donor sums, ``"total"`` counts, or a
    column of ``adata.obs`` with a size factor above 0 for each cell. ``None`` takes the median ratio if 50 genes have counts
    in every donor, and totals otherwise. Both are of all genes in the matrix, whatever `mask_var` says.""",
    "offset": """\
offset
    For ``family="nb"``: a column of ``adata.obs`` with the logarithms of size factors, instead of these.""",
    "groupby": """\
groupby
    Column of ``adata.obs``, such as the cell type: each of its groups of cells has a model of its own, with its own
    design, levels and prior, as if its cells were all there are. Every cell is read once.
groups
    Groups to use. By default all that have cells.
min_cells
    Cells that a donor needs in a group; those of a donor with fewer are left out of it.
min_donors
    Donors that a group needs.
min_pct
    Share of the cells of a group (0 to 1) that must express a gene for it to be tested there.""",
    "n_jobs": """\
n_jobs
    Workers for the fits, as in joblib. ``None`` follows ``joblib.parallel_config``. They pay from about 100 donors on
    and never change a result. The matrix is read by as many threads as ``numba.get_num_threads()`` says.""",
    "show_progress": """\
show_progress
    Show progress bars: always, never, or (None) for steps of more than a second.""",
    "key": """\
key
    The `key_added` of the run.""",
    "run": """\
adata
    Annotated data with a run of :func:`sc_lmm.tl.lmm_de`.
key
    The `key_added` of the run.""",
    "comparison": """\
comparison
    Name of the comparison, e.g. the level of the tested factor. By default the first one of the run.""",
    "ax": """\
ax
    Where to draw. By default in a new figure.""",
    "show": """\
show
    Show the figure and return nothing. By default as in ``scanpy.settings.autoshow``.""",
    "n_labels": """\
n_labels
    Number of genes to name, smallest p-values first. Names do not overlap; one that finds no place is left out.""",
    "gene_symbols": """\
gene_symbols
    Column of ``adata.var`` with names to show instead of ``adata.var_names``.""",
}


def doc_params(function: F) -> F:
    """Put the shared paragraphs in place of their ``{name}`` in the docstring."""
    doc = function.__doc__ or ""
    for name, text in _PARAMETERS.items():
        # From Python 3.13 on the compiler strips the common indentation of docstrings, so both forms occur.
        for margin in ("", "    "):
            doc = doc.replace(f"\n{margin}{{{name}}}\n", f"\n{indent(text, margin)}\n")
    function.__doc__ = doc
    return function

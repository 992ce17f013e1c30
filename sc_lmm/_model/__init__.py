"""Statistics -> Fit or CountPoints: likelihoods, their maxima, and the estimates there, for genes in blocks."""

from .base import BOUNDARY, STATUS, BaseFit
from .blocks import for_blocks, gene_blocks
from .count_points import (
    COUNT_STATUS,
    CountPoints,
    contrast_variances,
    corrected_ratios,
    count_points,
    half_counts,
    log_likelihoods,
)
from .deviance import Profile, Spectrum, coefficients, profile, project, project_beside, spectrum
from .fit import Fit, fit_models
from .moments import moments_at
from .optimize import Terms, derivatives, evaluate
from .points import AtPoints, GenesAtPoints, Support, support
from .rest import Moments
from .structure import Structure, structure
from .term_fit import TermFit, fit_terms, shares
from .term_points import GenesAtTermPoints, PointTable, point_table

__all__ = [
    "AtPoints",
    "BOUNDARY",
    "BaseFit",
    "COUNT_STATUS",
    "CountPoints",
    "Fit",
    "GenesAtPoints",
    "GenesAtTermPoints",
    "Moments",
    "PointTable",
    "Profile",
    "STATUS",
    "Spectrum",
    "Structure",
    "Support",
    "TermFit",
    "Terms",
    "coefficients",
    "contrast_variances",
    "corrected_ratios",
    "count_points",
    "derivatives",
    "evaluate",
    "fit_models",
    "fit_terms",
    "for_blocks",
    "gene_blocks",
    "half_counts",
    "log_likelihoods",
    "moments_at",
    "point_table",
    "profile",
    "project",
    "project_beside",
    "shares",
    "spectrum",
    "structure",
    "support",
]

"""Statistics -> Fit or CountPoints: likelihoods, their maxima, and the estimates there, for genes in blocks."""

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
from .fit import BOUNDARY, STATUS, Fit, fit_models
from .optimize import Terms, derivatives, evaluate
from .points import AtPoints, Support, at_points, support

__all__ = [
    "AtPoints",
    "BOUNDARY",
    "COUNT_STATUS",
    "CountPoints",
    "Fit",
    "Profile",
    "STATUS",
    "Spectrum",
    "Support",
    "Terms",
    "at_points",
    "coefficients",
    "contrast_variances",
    "corrected_ratios",
    "count_points",
    "derivatives",
    "evaluate",
    "fit_models",
    "for_blocks",
    "gene_blocks",
    "half_counts",
    "log_likelihoods",
    "profile",
    "project",
    "project_beside",
    "spectrum",
    "support",
]

"""SufficientStatistics -> Fit: likelihoods, their maxima, and the estimates there, for genes in blocks."""

from .blocks import for_blocks, gene_blocks
from .deviance import Profile, Spectrum, coefficients, profile, project, project_beside, spectrum
from .fit import BOUNDARY, STATUS, Fit, fit_models
from .optimize import Terms, derivatives, evaluate
from .points import AtPoints, Support, at_points, support

__all__ = [
    "AtPoints",
    "BOUNDARY",
    "Fit",
    "Profile",
    "STATUS",
    "Spectrum",
    "Support",
    "Terms",
    "at_points",
    "coefficients",
    "derivatives",
    "evaluate",
    "fit_models",
    "for_blocks",
    "gene_blocks",
    "profile",
    "project",
    "project_beside",
    "spectrum",
    "support",
]

"""SufficientStatistics -> Fit: likelihoods, their maxima, and the estimates there, for genes in blocks."""

from .blocks import for_blocks, gene_blocks
from .deviance import Profile, Spectrum, profile, project, spectrum, within_projections
from .fit import BOUNDARY, STATUS, Fit, fit_models
from .moments import moments_at
from .optimize import Terms, derivatives, evaluate
from .points import AtPoints, PointTable, point_table
from .rest import Moments
from .structure import Structure, structure
from .term_fit import TermFit, fit_terms

__all__ = [
    "AtPoints",
    "BOUNDARY",
    "Fit",
    "Moments",
    "PointTable",
    "Profile",
    "STATUS",
    "Spectrum",
    "Structure",
    "TermFit",
    "Terms",
    "derivatives",
    "evaluate",
    "fit_models",
    "fit_terms",
    "for_blocks",
    "gene_blocks",
    "moments_at",
    "point_table",
    "profile",
    "project",
    "spectrum",
    "structure",
    "within_projections",
]

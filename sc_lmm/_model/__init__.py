"""SufficientStatistics -> Fit: likelihoods, their maxima, and the estimates there, for genes in blocks."""

from .blocks import for_blocks, gene_blocks
from .deviance import Profile, Spectrum, profile, project, project_beside, spectrum
from .fit import Fit, fit_models
from .moments import moments_at
from .optimize import Terms, derivatives, evaluate
from .points import AtPoints, Support, at_points, support
from .rest import Moments
from .status import BOUNDARY, STATUS
from .structure import Structure, structure
from .term_fit import TermFit, fit_terms
from .term_points import PointTable, point_table

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
    "Support",
    "TermFit",
    "Terms",
    "at_points",
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
    "project_beside",
    "spectrum",
    "structure",
    "support",
]

"""Differential expression across donors with linear mixed models, for scanpy."""

from importlib.metadata import version

from . import datasets, get, pl, tl
from ._errors import DesignError, LmmWarning

__all__ = ["DesignError", "LmmWarning", "datasets", "get", "pl", "tl"]
__version__ = version("sc-lmm")

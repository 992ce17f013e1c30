"""Differential expression across donors with linear mixed models, for scanpy."""

from importlib.metadata import version

from . import datasets, get, pl, tl

__all__ = ["datasets", "get", "pl", "tl"]
__version__ = version("sc-lmm")

"""Tools: fit and test."""

from ._lmm_de import lmm_de

__all__ = ["lmm_de"]

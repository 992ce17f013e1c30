"""Read results as tables and text."""

from ._lmm_de_df import lmm_de_df
from ._lmm_de_equation import Equation, lmm_de_equation

__all__ = ["Equation", "lmm_de_df", "lmm_de_equation"]

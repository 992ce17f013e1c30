"""Read results as tables and text."""

from ._design_report import design_report
from ._lmm_de_df import lmm_de_df
from ._lmm_de_equation import Equation, lmm_de_equation
from ._lmm_de_params import lmm_de_params
from ._ranef_df import ranef_df
from ._variance_partition_df import variance_partition_df

__all__ = [
    "Equation",
    "design_report",
    "lmm_de_df",
    "lmm_de_equation",
    "lmm_de_params",
    "ranef_df",
    "variance_partition_df",
]

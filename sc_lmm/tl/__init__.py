"""Tools: look at a design, fit, test, and check the tests."""

from ._check_design import check_design
from ._lmm_de import lmm_de
from ._lmm_fit import lmm_fit
from ._permutation_check import permutation_check
from ._power import power

__all__ = ["check_design", "lmm_de", "lmm_fit", "permutation_check", "power"]

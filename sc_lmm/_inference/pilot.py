"""A fitted object and a question -> the pilot of a study: a design to draw cohorts from, and what is known of its genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from .._design import check_one_intercept, hypotheses_of, is_random_term
from .._errors import alternatives, listing
from .answers import is_moderated
from .moderation import at_support, moderated_test
from .power import DEFAULT_ICC, LEARNED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._design import Coding, Hypothesis, TestSpec
    from .._statistics import SufficientStatistics
    from .answers import Choices
    from .estimates import Estimates
    from .fitted import LmmFit
    from .moderation import Moderation


@dataclass(frozen=True)
class Pilot:
    """A design to draw cohorts from, and what is known of a gene in it."""

    stats: SufficientStatistics  # of one gene, for the products of X and Z
    hypothesis: Hypothesis
    sd: float = 1.0  # of a cell, in units of the effect
    icc: float | str = DEFAULT_ICC  # or LEARNED
    moderation: Moderation | None = None  # what all genes have taught, with the ranks of those that are asked about


def pilot_of_fit(fit: LmmFit, hypothesis: Hypothesis, gene: str | None, choices: Choices) -> Pilot:
    """Take a fit for the pilot of a study of all its genes, or of one."""
    one, estimates = fit.stats.genes(slice(0, 1)), cast("Estimates", fit.estimates)
    learned = choices.method == "lrt" and is_moderated(estimates, choices)
    if gene is None:
        if not learned:
            return Pilot(one, hypothesis)
        return Pilot(one, hypothesis, 1.0, LEARNED, _about(estimates.moderation, np.flatnonzero(estimates.ml.usable)))
    position = np.flatnonzero(fit.var_names == gene)[:1]
    if position.size == 0:
        msg = f"gene={gene!r} is not among the fitted genes. {alternatives(gene, fit.var_names)}"
        raise KeyError(msg)
    if not fit.reml.usable[position[0]]:
        msg = f"gene={gene!r} could not be fitted, so that it has no ICC. Choose a gene that varies within donors."
        raise ValueError(msg)
    moderation = _about(estimates.moderation, position) if learned else None
    return Pilot(one, hypothesis, *_scale(estimates, position, hypothesis, moderation), moderation)


def _about(moderation: Moderation, genes: NDArray[np.int64]) -> Moderation:
    return replace(moderation, rank=moderation.rank[genes])


def _scale(
    estimates: Estimates, gene: NDArray[np.int64], hypothesis: Hypothesis, moderation: Moderation | None
) -> tuple[float, float]:
    """Standard deviation of a cell and ICC of one gene, (1,): the posterior mean of the ICC, or REML's without a prior."""
    icc = estimates.reml.icc[gene]
    if moderation is not None:
        stats, restricted = estimates.stats.genes(gene), estimates.restricted.genes(gene)
        icc = moderated_test(
            at_support(stats, restricted, moderation, hypothesis.L), moderation, conf_level=None, show_progress=False
        ).icc
    sd = np.sqrt(estimates.reml.sigma2[gene] / (1 - icc))
    return float(sd[0]), float(icc[0])


def only_hypothesis(coding: Coding, test: TestSpec) -> Hypothesis:
    """Find the hypothesis of a test with one degree of freedom."""
    check_one_intercept(coding.formula, "Power")
    if is_random_term(test, coding):
        msg = f"test={test!r} is the random term. Power is of fixed effects; name one of them."
        raise ValueError(msg)
    hypotheses = hypotheses_of(coding, test)
    if len(hypotheses) == 1 and hypotheses[0].df == 1:
        return hypotheses[0]
    msg = (
        f"test={test!r} has several comparisons ({listing(h.name for h in hypotheses)}) and power is of one effect. "
        f"Name one, for example test={_example(coding, test)}."
    )
    raise ValueError(msg)


def _example(coding: Coding, test: TestSpec) -> str:
    if not isinstance(test, str):
        return repr(next(iter(test.values() if hasattr(test, "values") else test), ""))
    factor = coding.factor_of(test)
    if factor is None:
        return '"cond(...) - cond(...)"'
    reference, other = coding.levels[factor][:2]
    return f"\"cond({factor}='{other}') - cond({factor}='{reference}')\""

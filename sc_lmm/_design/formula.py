"""The text of a mixed-model formula -> its fixed part (formulaic's grammar) and its random terms (lme4's).

    gene_expression ~ sequencing_saturation + diagnosis + (1 | sample_id)

The response is always the expression matrix, so the left-hand side is optional and not interpreted. A random term is
a parenthesis with a bar, ``(effects | group)`` as in Bates et al. 2015 (section 2.1); what is left is the fixed part.
``(e | a/b)`` is ``(e | a) + (e | a:b)``, and ``||`` gives every column of the effects a variance and no correlations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from formulaic.errors import FormulaicError

from .._errors import DesignError
from .._names import quoted
from .aliases import Aliases
from .tokens import OPAQUE, Token, matching, split, tokenize, unbalanced, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from formulaic import Formula

    from .aliases import Use

_EXAMPLE = '"~ sequencing_saturation + diagnosis + (1 | sample_id)"'
_SUPPORTED = (
    "Supported: intercepts (1 | a), nested (1 | a/b), of combinations (1 | a:b), slopes (1 + x | a), uncorrelated "
    "slopes (1 + x || a) and slopes alone (0 + x | a), and sums of these."
)


@dataclass(frozen=True)
class Bar:
    """A random term as written, ``(effects | group)``; ``||`` counts as two bars."""

    text: str  # what the parentheses hold
    bars: int
    effects: tuple[Token, ...]
    group: tuple[Token, ...]  # to the right of the last bar


@dataclass(frozen=True)
class RandomSpec:
    """Effects that vary between the levels of one grouping, as a formula says it."""

    text: str  # of the effects, e.g. "1 + x"
    effects: tuple[Token, ...]
    columns: tuple[str, ...]  # of obs, whose combinations are the levels
    correlated: bool

    @property
    def grouping(self) -> str:
        """What the grouping is called: "donor", or "donor:batch"."""
        return ":".join(self.columns)

    @property
    def is_intercept(self) -> bool:
        """Whether it is an intercept and nothing else."""
        return [token.text for token in self.effects] == ["1"]

    @property
    def key(self) -> tuple[str, frozenset[str], bool]:
        """What two ways to write the same term have in common."""
        written = "".join(token.text for token in self.effects).removeprefix("1+")
        return written, frozenset(self.columns), self.correlated or written == "1"

    def __str__(self) -> str:
        """Write it as a formula does."""
        return f"({self.text} {'|' if self.correlated else '||'} {':'.join(map(quoted, self.columns))})"


@dataclass(frozen=True)
class MixedFormula:
    """A formula taken apart."""

    text: str  # as typed
    fixed: tuple[Token, ...]  # the right-hand side without random terms
    random: tuple[RandomSpec, ...]  # at least one

    @cached_property
    def group(self) -> str:
        """The grouping that a design is described by, e.g. "sample_id": the first that is one column of obs."""
        names = [spec.grouping for spec in self.random]
        return next((spec.grouping for spec in self.random if len(spec.columns) == 1), names[0])

    @property
    def group_columns(self) -> list[str]:
        """Columns of obs that the groupings need."""
        return list(dict.fromkeys(column for spec in self.random for column in spec.columns))

    @property
    def is_one_intercept(self) -> bool:
        """Whether there is one random term, and it is an intercept."""
        return len(self.random) == 1 and self.random[0].is_intercept

    @property
    def random_text(self) -> str:
        """The random terms as a formula writes them."""
        return " + ".join(map(str, self.random))

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Columns that the fixed part needs, and how, in the order of the terms."""
        formula, aliases = self.aliased()
        return tuple(aliases.used_in(formula).values())

    @cached_property
    def random_uses(self) -> tuple[Use, ...]:
        """Columns that random slopes need, and how."""
        parts = [self.aliased(of=spec.effects) for spec in self.random]
        return tuple(dict.fromkeys(use for formula, aliases in parts for use in aliases.used_in(formula).values()))

    @property
    def variables(self) -> list[str]:
        """Names of the columns that the fixed part needs."""
        return list(dict.fromkeys(use.column for use in self.uses))

    def aliased(self, avoid: Iterable[str] = (), of: tuple[Token, ...] | None = None) -> tuple[Formula, Aliases]:
        """Formulaic's formula of the fixed part, its columns called by names that occur nowhere in the texts to avoid.

        Or of the effects of a random term.
        """
        aliases = Aliases.avoiding([self.text, *avoid])
        try:
            return aliases.formula(self.fixed if of is None else of), aliases
        except (FormulaicError, SyntaxError, TypeError, ValueError) as error:
            if isinstance(error, DesignError):
                raise
            reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()[0]
            raise unreadable(self.text, aliases.restore(reason)) from error


def parse_formula(text: str) -> MixedFormula:
    """Split `text` into its fixed part and its random intercept, or say what cannot be read."""
    if not isinstance(text, str):
        msg = f"formula must be a string such as {_EXAMPLE}, not {type(text).__name__}."
        raise TypeError(msg)
    tokens = _right_hand_side(text)
    bars, fixed = _take_random_terms(tokens, text)
    formula = MixedFormula(str(text), fixed, _random_specs(bars, text))
    _ = formula.uses, formula.random_uses  # what formulaic cannot read is refused here
    return formula


def read_term(text: str) -> tuple[str, ...]:
    """Factors of a fixed-effect term, each as a formula writes it, in one order (a:b is b:a); none if it is no term."""
    try:
        parts = split(tokenize(text), ":")
        if any(len(part) != 1 or part[0].kind not in ("name", "number", "code") for part in parts):
            return ()
        aliases = Aliases.avoiding([text])
        return tuple(sorted(aliases.token_text(part[0]) for part in parts))
    except DesignError:
        return ()


def read_column(text: str) -> str | None:
    """Column that a term is, None if it is more than one column as it is."""
    try:
        tokens = tokenize(text)
    except DesignError:
        return None
    return tokens[0].text if [token.kind for token in tokens] == ["name"] else None


def read_random_terms(text: str) -> tuple[RandomSpec, ...]:
    """Random terms that a text is, as in "(1 | sample_id)"; none if it is anything else."""
    try:
        bars, fixed = _take_random_terms(tokenize(text), text)
        return () if fixed else _random_specs(bars, text)
    except DesignError:
        return ()


def _right_hand_side(text: str) -> list[Token]:
    tildes = (found.end() for found in re.finditer(rf"{OPAQUE.pattern}|~", text, re.DOTALL) if found[0] == "~")
    tokens = tokenize(text, next(tildes, 0))
    if not tokens or any(token.is_operator("~") for token in tokens):
        msg = f"formula {text!r} must have one '~' with terms to its right, for example {_EXAMPLE}."
        raise DesignError(msg)
    return tokens


def _take_random_terms(tokens: Sequence[Token], text: str) -> tuple[list[Bar], tuple[Token, ...]]:
    """Take every parenthesis that holds a bar, with the "+" that joins it, out of the right-hand side."""
    items = list(_items(tokens, text))
    bars: list[Bar] = []
    fixed: list[list[Token]] = []
    for before, item, after in zip([None, *items], items, [*items[1:], None], strict=False):
        bar = _bar(item, text)
        if bar is None:
            if fixed or not bars or not item[0].is_operator("+"):  # not the "+" after a random term that came first
                fixed.append(item)
            continue
        if not (_joins(before, "+") and _joins(after, "+", "-")):
            msg = f"formula {text!r} has a random term that is not added. Join terms with '+', for example {_EXAMPLE}."
            raise DesignError(msg)
        bars.append(bar)
        if fixed:
            fixed.pop()  # the "+" before it
    return bars, tuple(token for item in fixed for token in item)


def _items(tokens: Sequence[Token], text: str) -> Iterator[list[Token]]:
    """Single tokens, and parentheses with what they hold."""
    position = 0
    while position < len(tokens):
        if tokens[position].kind == "close":
            raise unbalanced(text)
        end = matching(tokens, position, text) if tokens[position].kind == "open" else position
        yield list(tokens[position : end + 1])
        position = end + 1


def _bar(item: Sequence[Token], text: str) -> Bar | None:
    """Read a random term, None if the item is none."""
    bars = [token for token in item if token.is_operator("|", "||")]
    if not bars:
        return None
    inside = item[1:-1]
    if sum(token.kind == "open" for token in item) != 1:
        msg = f"formula {text!r} has a '|' outside parentheses or in several. Write a random term as (1 | sample_id)."
        raise DesignError(msg)
    effects, *groups = split(inside, "|", "||")
    n_bars = sum(len(token.text) for token in bars)
    return Bar(text[item[0].end : item[-1].start], n_bars, tuple(effects), tuple(groups[-1]))


def _joins(item: Sequence[Token] | None, *symbols: str) -> bool:
    return item is None or item[0].is_operator(*symbols)


def _random_specs(bars: Sequence[Bar], text: str) -> tuple[RandomSpec, ...]:
    if not bars:
        msg = f"formula {text!r} has no random term. Add the donor or sample of each cell, for example (1 | sample_id)."
        raise DesignError(msg)
    specs = [spec for bar in bars for spec in _expanded(bar, text)]
    keys = [spec.key for spec in specs]
    repeated = next((spec for spec in specs if keys.count(spec.key) > 1), None)
    if repeated is not None:
        msg = f"formula {text!r} has the random term {repeated} twice. Leave one of them out."
        raise DesignError(msg)
    return tuple(specs)


def _expanded(bar: Bar, text: str) -> list[RandomSpec]:
    """Terms that a parenthesis stands for: one for each step of a nested grouping."""
    if bar.bars > 2 or not bar.effects:
        found = f"has {bar.bars} bars" if bar.bars > 2 else "has nothing to the left of its bar"
        msg = f"random term ({bar.text}) {found}. {_SUPPORTED}"
        raise DesignError(msg)
    effects = text[bar.effects[0].start : bar.effects[-1].end]
    correlated = bar.bars == 1
    columns: tuple[str, ...] = ()
    specs = []
    for part in split(bar.group, "/"):
        columns = (*columns, *(_group_column(names, bar) for names in split(part, ":")))
        specs.append(RandomSpec(effects, bar.effects, tuple(dict.fromkeys(columns)), correlated))
    return specs


def _group_column(tokens: Sequence[Token], bar: Bar) -> str:
    if [token.kind for token in tokens] != ["name"]:
        msg = (
            f"random term ({bar.text}) must name columns of adata.obs to the right of its bar, in backticks if a name is "
            f"no plain word: (1 | `donor id`). {_SUPPORTED}"
        )
        raise DesignError(msg)
    return tokens[0].text

"""Columns <-> what they are called in the formula that formulaic gets.

formulaic has names of its own (1, Intercept, np, C) and takes texts apart at ":" and at brackets. So it is told of
columns by aliases that occur nowhere else, and of code by factors that hold it whole: whatever a column is called, and
whatever stands in a string, is never read again.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from formulaic import Formula
from formulaic.parser.types import Factor, Term

from .._names import quoted
from .code import translate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .tokens import Token


class Use(NamedTuple):
    """A column and how a formula uses it."""

    column: str
    as_factor: bool  # as the argument of C(): its values are levels, even if they are numbers


@dataclass(frozen=True)
class Aliases:
    """The names that one formula gives to its columns."""

    stem: str  # occurs in no text in which a name may have to be found again
    uses: list[Use] = field(default_factory=list)

    @classmethod
    def avoiding(cls, texts: Iterable[str]) -> Aliases:
        """Names that cannot be mistaken for a part of these texts."""
        stem, everything = "column", "\n".join(texts)
        while stem in everything:
            stem += "_"
        return cls(stem)

    def __call__(self, column: str, *, as_factor: bool) -> str:
        """Alias of a column, the same for the same use."""
        use = Use(column, as_factor)
        if use not in self.uses:
            self.uses.append(use)
        return self._alias(self.uses.index(use))

    def formula(self, tokens: Iterable[Token]) -> Formula:
        """Formulaic's formula: operators and their meaning are formulaic's, names and code are put in place of aliases."""
        code: dict[str, str] = {}  # placeholder -> code
        written = [self._written(token, code) for token in tokens]
        terms = Formula(" ".join(written) or "1")
        return Formula([Term([_with_code(factor, code) for factor in term.factors]) for term in terms])

    def used_in(self, formula: Formula) -> dict[str, Use]:
        """Columns that the terms of a formula need, by their aliases, in the order of the terms."""
        named = {self._alias(position): use for position, use in enumerate(self.uses)}
        found = [name for term in formula for factor in term.factors for name in names_in(factor.expr)]
        return {name: named[name] for name in found if name in named}

    def restore(self, text: str) -> str:
        """Text with the names of columns in place of their aliases, as a formula writes them."""
        return self._pattern.sub(self._restored, text)

    def term_text(self, term: Term) -> str:
        """Write a term as a formula does."""
        return ":".join(self.factor_text(factor.expr) for factor in term.factors)

    def factor_text(self, text: str) -> str:
        """Write a factor, a name or code in aliases, as a formula does."""
        whole = isinstance(ast.parse(text, mode="eval").body, ast.Name | ast.Call | ast.Constant)
        return self.restore(text) if whole else f"{{{self.restore(text)}}}"

    def token_text(self, token: Token) -> str:
        """Write a token that is a factor in the one way in which terms are written."""
        return self.factor_text(self._translated(token))

    def _alias(self, position: int) -> str:
        return f"{self.stem}{position:03}"  # formulaic sorts names in places

    def _restored(self, found: re.Match[str]) -> str:
        """Name of a column; in code, where fewer names are plain, unless it is a factor, with a level or without."""
        is_factor = found.string[: found.start()][-1:] in ("", ":") and found.string[found.end() :][:1] in (
            "",
            ":",
            "[",
        )
        return quoted(self.uses[int(found[1])].column, in_code=not is_factor)

    @property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\b{self.stem}(\d+)\b")

    def _written(self, token: Token, code: dict[str, str]) -> str:
        translated = self._translated(token)
        if token.kind != "code":
            return translated
        placeholder = next((p for p, c in code.items() if c == translated), f"{self.stem}_code{len(code):03}")
        code[placeholder] = translated
        return placeholder

    def _translated(self, token: Token) -> str:
        if token.kind == "name":
            return self(token.text, as_factor=False)
        return translate(token.text, self) if token.kind == "code" else token.text


def names_in(expression: str) -> list[str]:
    """Names that an expression looks up, in the order in which they stand there."""
    return [part.id for part in ast.walk(ast.parse(expression, mode="eval")) if isinstance(part, ast.Name)]


def _with_code(factor: Factor, code: dict[str, str]) -> Factor:
    if factor.expr not in code:
        return factor
    return Factor(code[factor.expr], eval_method="python")

"""The text of a formula -> tokens. Names in backticks may hold anything, and calls stay whole, as pieces of code.

What a token is follows formulaic (and R): a word directly before "(" is a call, ``{...}`` is code, ``%in%`` and ``**``
are operators. Everything that is read later, random terms included, is read from tokens and never from text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .._errors import DesignError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Kind = Literal["name", "number", "text", "code", "operator", "open", "close"]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | `(?P<quoted>[^`]+)`
    | (?P<text>'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*")
    | (?P<word>[\w.]+)
    | (?P<operator>%in% | \*\* | \|\| | [-+*/:^~|])
    | (?P<open>[({])
    | (?P<close>[)}])
    """,
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
# A stretch of code in which brackets do not count: names in backticks, and strings.
OPAQUE = re.compile(r"""`[^`]*`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Token:
    """A piece of a formula."""

    kind: Kind
    text: str  # of a name without its backticks, of code in braces without these
    start: int  # where it stands in the formula
    end: int

    def is_operator(self, *symbols: str) -> bool:
        """Whether this is one of these operators."""
        return self.kind == "operator" and self.text in symbols


def tokenize(text: str, position: int = 0) -> list[Token]:
    """Take a formula apart from a position on, or say which character cannot be read."""
    tokens: list[Token] = []
    while position < len(text):
        token, position = _next(text, position)
        if token is not None:
            tokens.append(token)
    return tokens


def matching(tokens: Sequence[Token], start: int, text: str) -> int:
    """Position of the parenthesis that closes the one at `start`."""
    depth = 0
    for position in range(start, len(tokens)):
        depth += (tokens[position].kind == "open") - (tokens[position].kind == "close")
        if depth == 0:
            return position
    raise unbalanced(text)


def split(tokens: Iterable[Token], *symbols: str) -> list[list[Token]]:
    """Parts between operators."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.is_operator(*symbols):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def unbalanced(text: str) -> DesignError:
    """Error for parentheses that do not match."""
    return DesignError(f"formula {text!r} has parentheses that do not match.")


def unreadable(text: str, reason: str) -> DesignError:
    """Error for a formula that is not one."""
    msg = (
        f"formula {text!r} cannot be read: {reason.rstrip('.')}. Fixed effects follow formulaic's grammar, e.g. "
        f'"~ sequencing_saturation + diagnosis + (1 | sample_id)".'
    )
    return DesignError(msg)


def _next(text: str, start: int) -> tuple[Token | None, int]:
    found = _TOKEN.match(text, start)
    if found is None:
        raise unreadable(text, f"unexpected {text[start]!r} at character {start + 1}")
    kind, end = str(found.lastgroup), found.end()
    if kind == "word":
        return _word(text, start, end)
    if found[0] == "{":
        end = _code_end(text, start)
        return Token("code", text[start + 1 : end - 1].strip(), start, end), end
    if kind == "space":
        return None, end
    if kind == "quoted":
        return Token("name", found["quoted"], start, end), end
    return Token(kind, found[0], start, end), end  # type: ignore[arg-type]


def _word(text: str, start: int, end: int) -> tuple[Token, int]:
    word = text[start:end]
    if text[end : end + 1] in ("(", "["):
        end = _code_end(text, end)
        while text[end : end + 1] in ("(", "[", "."):  # f(x)(y), f(x).y: one piece of code, which is refused as a whole
            end = _code_end(text, end) if text[end] != "." else _attribute_end(text, end)
        return Token("code", text[start:end], start, end), end
    if word == ".":
        raise unreadable(text, "'.', all other columns, is not supported; name the columns")
    return Token("number" if _NUMBER.fullmatch(word) else "name", word, start, end), end


def _attribute_end(text: str, start: int) -> int:
    word = re.compile(r"[\w.]+").match(text, start)
    return word.end() if word else start + 1


def _code_end(text: str, start: int) -> int:
    """Position after the bracket that closes the one at `start`."""
    closing: list[str] = []
    position = start
    while position < len(text):
        opaque = OPAQUE.match(text, position)
        if opaque is not None:
            position = opaque.end()
            continue
        character = text[position]
        position += 1
        if character in _CLOSING:
            closing.append(_CLOSING[character])
        elif character in _CLOSING.values():
            if character != closing.pop():
                raise unbalanced(text)
            if not closing:
                return position
    raise unbalanced(text)

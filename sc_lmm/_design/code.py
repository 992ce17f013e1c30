"""Code inside a formula -> the same code with columns replaced, if it is one of the few things that code may be here.

A formula is data: it may come from a file, a web form or a colleague. formulaic evaluates it, and would run any Python.
So every piece of code is taken apart first, and only arithmetic, comparisons and calls of known functions of columns
and literals are put together again. formulaic never gets a text that was not written here.
"""

from __future__ import annotations

import ast
import re
from typing import NamedTuple, Protocol

import numpy as np
from formulaic.transforms import TRANSFORMS

from .._errors import DesignError
from .._names import quoted

_CODINGS = [name for name in vars(TRANSFORMS["contr"]) if not name.startswith("_")]  # treatment, sum, helmert, ...
_CODING_CLASSES = {"Sum", "Helmert", "Diff", "Poly"}


class _Arguments(NamedTuple):
    least: int
    most: int
    keywords: bool = True


def _of_ufunc(function: np.ufunc) -> _Arguments:
    """As many as it takes: numpy would write to a further one."""
    return _Arguments(function.nin, function.nin, keywords=False)


_UFUNCS = {n: f for n, f in vars(np).items() if isinstance(f, np.ufunc) and f.signature is None and f.nout == 1}
_FUNCTIONS: dict[str, _Arguments] = {
    **{n: _of_ufunc(f) if isinstance(f, np.ufunc) else _Arguments(1, 9) for n, f in TRANSFORMS.items()},
    **dict.fromkeys(("Treatment", *_CODING_CLASSES, *(f"contr.{name}" for name in _CODINGS)), _Arguments(0, 9)),
    **dict.fromkeys(("within", "between", "exp10"), _Arguments(1, 1, keywords=False)),
    **{f"np.{name}": _of_ufunc(function) for name, function in _UFUNCS.items()},
    **{"np.where": _Arguments(3, 3), "np.clip": _Arguments(1, 3), "np.round": _Arguments(1, 2)},
    **{"np.isin": _Arguments(2, 2), "np.digitize": _Arguments(2, 2)},
}
_TRANSFORMS = {"within", "between", *(n for n, f in TRANSFORMS.items() if hasattr(f, "__is_stateful_transform__"))}
del _FUNCTIONS["np"], _FUNCTIONS["contr"]  # no functions
_VALUES = {"np.pi", "np.e", *(f"contr.{name}" for name in _CODINGS)}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr, ast.BitXor)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ALLOWED = (
    "Allowed are arithmetic and comparisons of columns, numbers and strings; C, bs, cr, poly, scale, center, log, exp, "
    "within, between and formulaic's other transforms; and numpy's functions of each value, such as np.log1p(x). Prepare "
    "anything else as a column of adata.obs. A name that is no plain word goes in backticks."
)
_MASKED = re.compile(r"""`(?P<quoted>[^`]+)`|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?P<word>[^\W\d]\w*)""", re.DOTALL)


class Alias(Protocol):
    """What a column is called in the text for formulaic."""

    def __call__(self, column: str, *, as_factor: bool) -> str:
        """Name for a column that is used as a value, or as the argument of C()."""


def translate(code: str, alias: Alias) -> str:
    """Code with every column replaced by its alias and in one way of writing, or an error that says what is allowed."""
    masked, names = mask(code)
    try:
        return ast.unparse(_Translator(names, alias).visit(ast.parse(masked, mode="eval").body))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, DesignError):
            raise
        reason = error.msg if isinstance(error, SyntaxError) else "it is too long"
        msg = f"{code!r} in a formula cannot be read: {reason}. {_ALLOWED}"
        raise DesignError(msg) from error


def mask(code: str) -> tuple[str, dict[str, str]]:
    """Replace names that Python would refuse or respell, those in backticks or not in ASCII; placeholder -> name."""
    names: dict[str, str] = {}
    stem = "name_"
    while stem in code:
        stem += "_"

    def replace(found: re.Match[str]) -> str:
        name = found["quoted"] or found["word"]
        if name is None or (found["word"] and name.isascii()):
            return found[0]
        placeholder = next((p for p, n in names.items() if n == name), f"{stem}{len(names)}_")
        names[placeholder] = name
        return placeholder

    return _MASKED.sub(replace, code).strip(), names


class _Translator(ast.NodeTransformer):
    """Copies what is allowed and raises at anything else."""

    def __init__(self, names: dict[str, str], alias: Alias) -> None:
        self.names, self.alias = names, alias
        self.in_transform = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        raise self._refusal(node, "is not of a kind that a formula may hold")

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, bool | int | float | str | None):
            return self.generic_visit(node)
        # formulaic writes the arguments of a transform into a text of its own that quotes would end.
        if isinstance(node.value, str) and self.in_transform and set(node.value) & set("'\"\\\n\r"):
            raise self._refusal(node, "is a string with a quotation mark or a backslash")
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._column(node)

    def visit_List(self, node: ast.List | ast.Tuple | ast.Dict) -> ast.AST:
        try:
            ast.literal_eval(node)
        except ValueError as error:
            raise self._refusal(node, "holds something other than numbers and strings") from error
        for part in (part for part in ast.walk(node) if isinstance(part, ast.Constant)):
            self._visit(part)
        return node

    visit_Tuple = visit_List

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        if any(isinstance(key, ast.Constant) and str(key.value).startswith("__") for key in node.keys):
            raise self._refusal(node, "has a name that begins with two underscores, which formulaic would leave out")
        return self.visit_List(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if not isinstance(node.op, _OPERATORS):
            return self.generic_visit(node)
        endless = isinstance(node.op, ast.Pow) and not any(isinstance(part, ast.Name) for part in ast.walk(node))
        if endless or any(_no_number(side) for side in (node.left, node.right)):
            # Python would raise integers to powers, and repeat strings, until the memory is full.
            raise self._refusal(node, "is not arithmetic with a column")
        return ast.BinOp(self._visit(node.left), node.op, self._visit(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not):
            raise self._refusal(node, "is one truth value for all cells; write ~ for not")
        return ast.UnaryOp(node.op, self._visit(node.operand))

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if len(node.ops) > 1 or not isinstance(node.ops[0], _COMPARISONS):
            raise self._refusal(node, "is not one comparison of two values")
        return ast.Compare(self._visit(node.left), node.ops, [self._visit(node.comparators[0])])

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if ast.unparse(node) not in _VALUES:
            raise self._refusal(node, "takes an attribute, or is a name with a dot without backticks")
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = ast.unparse(node.func)
        if called not in _FUNCTIONS:
            raise self._refusal(node, f"calls {self._named(called)!r}, which is no function that a formula may call")
        if called == "Q":  # patsy's way to write what is in backticks here
            return self._quoted(node)
        self._check_arguments(node, _FUNCTIONS[called])
        outside, self.in_transform = self.in_transform, self.in_transform or called in _TRANSFORMS
        keywords = [ast.keyword(k.arg, self._argument(k.value, called)) for k in node.keywords]
        positional = [self._argument(argument, called, first=k == 0) for k, argument in enumerate(node.args)]
        self.in_transform = outside
        return ast.Call(node.func, positional, keywords)

    def _check_arguments(self, node: ast.Call, allowed: _Arguments) -> None:
        names = [str(keyword.arg) for keyword in node.keywords]
        if any(isinstance(argument, ast.Starred) for argument in node.args) or "None" in names:
            raise self._refusal(node, "unpacks arguments")
        if any(name == "out" or name.startswith("_") or not allowed.keywords for name in names):
            raise self._refusal(node, f"has an argument {names[0]!r} that is not for formulas")
        if not allowed.least <= len(node.args) <= allowed.most:
            raise self._refusal(node, f"has {len(node.args)} arguments, which is not what the function takes")

    def _argument(self, node: ast.expr, called: str, *, first: bool = False) -> ast.expr:
        if called == "C" and isinstance(node, ast.Name):
            return self._column(node, as_factor=True) if first or node.id not in _CODING_CLASSES else node
        return self._visit(node)

    def _column(self, node: ast.Name, *, as_factor: bool = False) -> ast.Name:
        return ast.Name(self.alias(self.names.get(node.id, node.id), as_factor=as_factor), ast.Load())

    def _quoted(self, node: ast.Call) -> ast.Name:
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Constant):
            raise self._refusal(node, "is not Q() of one name")
        return ast.Name(self.alias(str(node.args[0].value), as_factor=False), ast.Load())

    def _refusal(self, node: ast.AST, why: str) -> DesignError:
        return DesignError(f"{self._named(ast.unparse(node))!r} in a formula {why}. {_ALLOWED}")

    def _named(self, text: str) -> str:
        for placeholder, name in self.names.items():
            text = text.replace(placeholder, quoted(name, in_code=True))
        return text

    def _visit(self, node: ast.expr) -> ast.expr:
        copied: ast.expr = self.visit(node)
        return copied


def _no_number(node: ast.AST) -> bool:
    constant = isinstance(node, ast.Constant) and not isinstance(node.value, int | float)
    return constant or isinstance(node, ast.List | ast.Tuple | ast.Dict)

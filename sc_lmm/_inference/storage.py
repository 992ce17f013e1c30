"""A fit <-> a file. What is read may consist of data alone: nothing that a file names is called.

A file is a line that says what it is, a digest of the rest, and a pickle. A pickle may name any function and have it
called; the reader here knows the classes that a fit consists of, and refuses every other name.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from dataclasses import is_dataclass, replace
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"sc_lmm fit 1\n"
_FORMULAIC = {
    "formulaic.formula": {"OrderingMethod", "SimpleFormula"},
    "formulaic.materializers.base": {"EncodedTermStructure"},
    "formulaic.materializers.types.enums": {"ClusterBy", "NAAction"},
    "formulaic.materializers.types.evaluated_factor": {"EvaluatedFactor"},
    "formulaic.materializers.types.scoped_factor": {"ScopedFactor"},
    "formulaic.materializers.types.scoped_term": {"ScopedTerm"},
    "formulaic.model_spec": {"ModelSpec"},
    "formulaic.parser.types.factor": {"Factor", "Factor.EvalMethod", "Factor.Kind"},
    "formulaic.parser.types.ordered_set": {"OrderedSet"},
    "formulaic.parser.types.term": {"Term"},
    "formulaic.parser.types.token": {"Token", "Token.Kind"},
    "formulaic.transforms.contrasts": {
        *("ContrastsState", "CustomContrasts", "DiffContrasts", "HelmertContrasts", "PolyContrasts", "SASContrasts"),
        *("SumContrasts", "TreatmentContrasts"),
    },
    "formulaic.utils.sentinels": {"Sentinel"},
    "formulaic.utils.variables": {"Variable", "Variable.Role"},
}
_ARRAYS = {
    "builtins": {"slice"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
}


def save(fit: Any, path: str | Path) -> None:
    """Write a fit, without the estimates made so far, to a file; whatever happens, there is the old file or the new one."""
    content = BytesIO()
    _Writer(content, protocol=5).dump(replace(fit))
    target = Path(path).resolve()  # through links, to where they lead
    unfinished = target.with_name(f".{target.name}.{token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            file.write(_MAGIC + hashlib.sha256(content.getvalue()).digest() + content.getvalue())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: str | Path, kind: type) -> Any:
    """Read what :func:`save` wrote, if it is of the kind wanted."""
    content = Path(path).read_bytes()
    if not content.startswith(_MAGIC):
        msg = f"{str(path)!r} is no file that LmmFit.save wrote, or one of another version. Fit again with sc_lmm.tl.lmm_fit."
        raise ValueError(msg)
    digest, content = content[len(_MAGIC) :][:32], content[len(_MAGIC) + 32 :]
    if hashlib.sha256(content).digest() != digest:
        msg = f"{str(path)!r} is damaged or not complete. Save it again, or fit again with sc_lmm.tl.lmm_fit."
        raise ValueError(msg)
    try:
        fit = _Reader(BytesIO(content)).load()
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        TypeError,
    ) as error:
        msg = f"{str(path)!r} cannot be read: {error}. Fit again with sc_lmm.tl.lmm_fit."
        raise ValueError(msg) from error
    if not isinstance(fit, kind):
        msg = f"{str(path)!r} does not hold an {kind.__name__} but a {type(fit).__name__}."
        raise TypeError(msg)
    return fit


class _Writer(pickle.Pickler):
    """Writes what pandas holds as lists and arrays, which every version of pandas can read."""

    def reducer_override(self, value: Any) -> Any:
        """Say how a value is written."""
        if isinstance(value, pd.Series):
            return _series, (value.to_numpy(), value.index)
        if isinstance(value, pd.Index):
            return _index, (value.tolist(), value.name, "string" if _is_nullable(value) else None)
        return NotImplemented


class _Reader(pickle.Unpickler):
    """Reads the classes of a fit and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Class that a file names, if it is one of those."""
        if module == __name__ and name in _OWN:
            return _OWN[name]
        if name in _ARRAYS.get(module, ()) or name in _FORMULAIC.get(module, ()):
            return super().find_class(module, name)
        found = getattr(sys.modules.get(module), name, None) if module.startswith("sc_lmm.") else None
        if isinstance(found, type) and found.__module__ == module and (is_dataclass(found) or issubclass(found, tuple)):
            return found
        msg = f"it names {module}.{name}, which is no part of a fit"
        raise pickle.UnpicklingError(msg)


def _index(values: list[Any], name: Any, dtype: Any) -> pd.Index:
    return pd.Index(values, name=name, dtype=dtype)


def _series(values: np.ndarray, index: pd.Index) -> pd.Series:
    return pd.Series(values, index=index)


_OWN = {"_index": _index, "_series": _series}


def _is_nullable(index: pd.Index) -> bool:
    return isinstance(index.dtype, pd.StringDtype) and index.dtype.na_value is pd.NA

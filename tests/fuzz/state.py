"""All that an AnnData holds, as one digest: what a call that fails must leave as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

_SLOTS = ("obs", "var", "uns", "obsm", "varm", "obsp", "varp")


def digest(adata: AnnData, slots: Sequence[str] = _SLOTS) -> str:
    """Digest of slots, of the matrices as they are stored, and of whether it is a view or backed."""
    found = hashlib.sha256()
    for slot in slots:
        _add(found, getattr(adata, slot))
    _add(found, {str(name): adata.layers[name] for name in adata.layers if name is not None})
    _add(found, [adata.is_view, adata.isbacked, None if adata.raw is None else adata.raw.X])
    _add(found, adata.X)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    found.update(type(value).__name__.encode())
    for part in _parts(value):
        if isinstance(part, bytes):
            found.update(part)
        else:
            _add(found, part)


def _parts(value: Any) -> Iterator[Any]:
    """What a value consists of: bytes, or further values."""
    if isinstance(value, Mapping):
        yield from (part for item in value.items() for part in item)
    elif isinstance(value, pd.DataFrame):
        yield from (value.index, *value.columns, *(value.iloc[:, k] for k in range(value.shape[1])))
    elif isinstance(value, pd.Series | pd.Index):
        yield f"{value.dtype!r} {value.name!r} {value.tolist()!r}".encode()
    elif sparse.issparse(value):
        yield from (value.data, value.indices, value.indptr)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype} {value.shape} {value.flags.f_contiguous}".encode() + value.tobytes()
    elif isinstance(value, list | tuple | np.ndarray):
        yield from value
    else:
        yield from _stored(value)


def _stored(value: Any) -> Iterator[Any]:
    """What is lazy or on disk as it is in memory, and anything else as it is shown."""
    for method in ("compute", "to_memory"):
        if hasattr(value, method):
            yield getattr(value, method)()
            return
    yield value[()] if type(value).__module__.startswith("h5py") else repr(value).encode()

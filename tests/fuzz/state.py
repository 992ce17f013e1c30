"""All that an AnnData holds, as one digest: what a call that fails must leave as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData

_SLOTS = ("obs", "var", "uns", "obsm", "varm", "obsp", "varp")


def digest(adata: AnnData) -> str:
    """Digest of every slot, of the matrices as they are stored, and of whether it is a view or backed."""
    found = hashlib.sha256()
    for slot in _SLOTS:
        _add(found, getattr(adata, slot))
    _add(found, {str(name): adata.layers[name] for name in adata.layers if name is not None})
    _add(found, [adata.is_view, adata.isbacked, None if adata.raw is None else adata.raw.X])
    _add(found, adata.X)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    found.update(type(value).__name__.encode())
    if isinstance(value, Mapping):
        for key in value:
            found.update(repr(key).encode())
            _add(found, value[key])
    elif isinstance(value, pd.DataFrame):
        _add(found, value.index)
        for k, name in enumerate(value.columns):
            found.update(repr(name).encode())
            _add(found, value.iloc[:, k])
    elif isinstance(value, pd.Series | pd.Index):
        found.update(f"{value.dtype!r} {value.name!r}".encode())
        _add(found, [repr(v) for v in value.tolist()])
    elif sparse.issparse(value):
        for part in ("data", "indices", "indptr"):
            _add(found, getattr(value, part))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        found.update(f"{value.dtype} {value.shape} {value.flags.f_contiguous}".encode() + value.tobytes())
    elif isinstance(value, list | tuple | np.ndarray):
        for part in value:
            _add(found, part)
    elif hasattr(value, "compute"):
        _add(found, value.compute())
    elif hasattr(value, "to_memory"):
        _add(found, value.to_memory())
    elif type(value).__module__.startswith("h5py"):
        _add(found, value[()])
    else:
        found.update(repr(value).encode())

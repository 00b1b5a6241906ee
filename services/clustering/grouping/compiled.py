"""Machine code for loops numpy cannot express.

Compiled on first call (about two seconds for all of them) and cached beside the source, or in the user's
cache folder where the source is read-only. Where neither can be written, as in a locked-down container, the
code is compiled once per process instead.

The cache is numba's own but for two things. Numba numbers the files of a function's types in the order they
come, without a lock, so two processes that compile it for different types at the same time may take one name,
and whoever reads it then runs the code of other types, without an error. Here a file is named after its
types. And numba notices changes of the function's own file only, while these functions call each other across
files: here any change in this folder makes all of it new.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

Function = TypeVar("Function", bound=Callable[..., Any])

_IndexDataCacheFile: Any = caching.IndexDataCacheFile
_FunctionCache: Any = caching.FunctionCache


def compiled(function: Function) -> Function:
    """Compile ``function`` to run without the interpreter's lock; same arguments, same result."""
    return _compile(function, fastmath=False)


def compiled_sums(function: Function) -> Function:
    """As :func:`compiled`; sums of floats may be taken in any order, which vectorises them. The last bits depend on the
    processor, not on the call.
    """
    return _compile(function, fastmath={"reassoc", "contract"})


class NamedCacheFile(_IndexDataCacheFile):  # type: ignore[misc]
    """The cache of one function. Each of its files has the name of its types, so that it can only ever hold their code."""

    def save(self, key: Any, data: Any) -> None:
        """Keep the code of some types. What others enter into the index meanwhile may be lost, and is then made again."""
        name = self._data_name(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]))
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class _Cache(_FunctionCache):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = NamedCacheFile(
            cache_path=self._cache_path, filename_base=self._impl.filename_base, source_stamp=_hash_sources()
        )


@cache
def _hash_sources() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _compile(function: Function, *, fastmath: bool | set[str]) -> Function:
    dispatcher = numba.njit(function, nogil=True, fastmath=fastmath)
    # numba's "no locator available": no folder for the cache can be written.
    with contextlib.suppress(RuntimeError):
        dispatcher._cache = _Cache(function)
    return cast(Function, dispatcher)

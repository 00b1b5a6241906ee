"""Machine code for loops numpy cannot express.

Compiled on first call (about two seconds for all of them) and cached beside the source, or in the user's
cache folder where the source is read-only. Where neither can be written, as in a locked-down container, the
code is compiled once per process instead. The cache of a function notices changes of its own file only, so a
compiled function calls others of its own file (and ``disjoint_sets``, after changing which ``__pycache__``
wants removing).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` to run without the interpreter's lock; same arguments, same result."""
    return _compile(function, fastmath=False)


def compiled_sums(function: Function) -> Function:
    """As :func:`compiled`; sums of floats may be taken in any order, which vectorises them. The last bits depend on the
    processor, not on the call.
    """
    return _compile(function, fastmath={"reassoc", "contract"})


def _compile(function: Function, *, fastmath: bool | set[str]) -> Function:
    try:
        return cast(Function, numba.njit(function, cache=True, nogil=True, fastmath=fastmath))
    except RuntimeError:  # numba's "no locator available": no folder for the cache can be written
        return cast(Function, numba.njit(function, nogil=True, fastmath=fastmath))

"""Functions over arrays, compiled on first use and kept on disk; and pointers into arrays for their inner loops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from treadle.core.errors import MissingExtra

try:
    import numba
    from numba import types
    from numba.extending import intrinsic
except ImportError:
    raise MissingExtra("numba", extra="filters") from None

if TYPE_CHECKING:
    from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code, to be called by other compiled ones."""
    return cast(F, numba.njit(nogil=True)(function))


def entry(function: F) -> F:
    """The function as machine code, to be called by Python. Kept beside the source, or in the user's cache folder where
    that is read-only, until any source of this package changes; where it cannot be kept, each process compiles it anew.
    """
    try:
        made = numba.njit(nogil=True, cache=True)(function)
        # By itself it would look at the file of this function alone, not at those of the functions that it calls.
        made._cache._cache_file._source_stamp = _sources()
    except (AttributeError, RuntimeError):
        return compiled(function)
    return cast(F, made)


@lru_cache(1)
def _sources() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """An address as a pointer to what the array ``like`` holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.uintp, like), generate


@compiled
def pointer(array: NDArray[Any]) -> Any:
    """A pointer to the first element, for indexing. An array is counted each time it is handed on, which costs more
    than what a small function does with it; a pointer is not, so whoever takes one keeps the array.
    """
    return _pointer(array.ctypes.data, array)

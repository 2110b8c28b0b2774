"""Functions over arrays, compiled on first use and kept on disk; and pointers into arrays for their inner loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from treadle.core.errors import MissingExtra

try:
    import numba
    from numba.core import types
    from numba.extending import intrinsic
except ImportError:
    raise MissingExtra("numba", extra="filters") from None

if TYPE_CHECKING:
    from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code. Kept beside the source, or in the user's cache folder where that is read-only;
    where neither can be written, each process compiles for itself.
    """
    try:
        return cast(F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no folder for its cache
        return cast(F, numba.njit(nogil=True)(function))


@intrinsic  # type: ignore[misc]
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

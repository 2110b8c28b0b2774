"""The packages that read and write Parquet, which only those need who have documents."""

from __future__ import annotations

from typing import Any

from treadle.core.errors import MissingExtra


def pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``; ``MissingExtra`` without them."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("pyarrow", extra="data") from None
    return pa, pq

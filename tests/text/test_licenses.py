"""The allow-list of licenses."""

from __future__ import annotations

import pytest

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.licenses import Licenses


def dropped(named: str | None, *, keep_unknown: bool = False) -> str | None:
    document = Document("doc:1", "made", "1", "text", license=named)
    (piece,) = Licenses(allow=["CC0-1.0", "mit"], keep_unknown=keep_unknown)([document])
    if isinstance(piece, Dropped):
        return f"{piece.rule}: {piece.reason}"
    assert piece is document
    return None


def test_only_what_is_allowed_stays() -> None:
    assert dropped("cc0-1.0") is None
    assert dropped(" MIT ") is None
    assert dropped("CC-BY-NC-4.0") == "licenses.not_allowed: its license 'CC-BY-NC-4.0' is not among the allowed"
    assert dropped("x" * 5000) == f"licenses.not_allowed: its license {'x' * 100!r} is not among the allowed"


def test_no_license_is_not_allowed_unless_one_says_so() -> None:
    assert dropped(None) == dropped("  ") == "licenses.unknown: it names no license"
    assert dropped(None, keep_unknown=True) is None


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UserError, match="allow"):
        Licenses(allow=[])

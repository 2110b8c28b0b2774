"""A plugin's settings are checked against its signature, with the nearest key suggested."""

from __future__ import annotations

import pytest

from treadle.core.errors import UserError
from treadle.core.settings import check


def shorten(batch: list[str], *, limit: int, mark: str = "!") -> None:
    """A plugin."""


def test_names_and_types_are_checked() -> None:
    assert check(shorten, {"limit": 3}, where="x", provided=("batch",)) == {"limit": 3}
    for settings, said in (
        ({"limt": 3}, "did you mean 'limit'"),
        ({"limit": 3, "batch": []}, "no setting 'batch'"),
        ({}, "limit is missing"),
        ({"limit": "3"}, "limit: input should be a valid integer"),
    ):
        with pytest.raises(UserError, match=said):
            check(shorten, settings, where="x", provided=("batch",))


def test_types_that_are_only_there_for_the_checker_do_not_stand_in_the_way() -> None:
    def gate(evidence: Evidence, *, most: int = 3) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Annotated with a name that is not imported when it runs."""

    assert check(gate, {"most": 2}, where="x", provided=("evidence",)) == {"most": 2}

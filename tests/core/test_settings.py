"""A plugin's settings are checked against its signature, with the nearest key suggested."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from treadle.core.errors import Place, UserError
from treadle.core.place import about
from treadle.core.settings import Moment, Positive, check


def shorten(batch: list[str], *, limit: int, mark: str = "!") -> None:
    """A plugin."""


@dataclass(frozen=True)
class Reading:
    """Settings within a setting."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (what pydantic looks for)

    seconds: int = 1


class Fields(BaseModel):
    """The same, as a model."""

    model_config = ConfigDict(extra="forbid")

    time: str


def read(
    *,
    reading: Reading | None = None,
    fields: Fields | None = None,
    kinds: list[str] | dict[str, Literal["redact", "drop"]] | None = None,
    most: Positive = 1,
    until: Moment | None = None,
) -> None:
    """Another."""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reading": {"second": 1}}, "x: no setting 'reading.second'; did you mean 'seconds'?"),
        ({"reading": {"seconds": "soon"}}, "x: reading.seconds: input should be a valid integer, unable to parse"),
        ({"fields": {}}, "x: fields.time is missing"),
        ({"fields": {"tim": "at", "time": "at"}}, "x: no setting 'fields.tim'; did you mean 'time'?"),
        ({"kinds": {"email": "nuke"}}, "x: kinds.email: input should be 'redact' or 'drop'"),
        ({"kinds": ["email", 3]}, "x: kinds[1]: input should be a valid string"),
        ({"kinds": 3}, "x: kinds: input should be a valid array"),
        ({"most": 0}, "x: most: input should be greater than 0"),
        ({"until": "someday"}, "x: until: expected a time in ISO 8601, such as 2027-01-31"),
    ],
)
def test_what_is_within_a_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check(read, settings, where="x")
    assert str(caught.value).startswith(said)
    assert check(read, {"until": "2027-01-31", "most": 2}, where="x") == {"until": "2027-01-31", "most": 2}


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


class Columns(BaseModel):
    """Settings inside a setting."""

    model_config = ConfigDict(extra="forbid")

    response: str | None = None


def mark(
    batch: list[str],
    *,
    columns: Columns | None = None,
    kinds: list[str] | dict[str, Literal["keep", "drop"]] | None = None,
    most: Annotated[int, Field(ge=1)] | Literal["all"] = "all",
) -> None:
    """A plugin with settings of several kinds."""


@pytest.mark.parametrize(
    ("settings", "said", "place"),
    [
        ({"colums": {}}, "no setting 'colums'; did you mean 'columns'?", ("colums",)),
        (
            {"columns": {"completion": "x"}},
            "no setting 'columns.completion'; known: response",
            ("columns", "completion"),
        ),
        ({"columns": {"response": 1}}, "columns.response: input should be a valid string", ("columns", "response")),
        ({"kinds": {"name": "burn"}}, "kinds.name: input should be 'keep' or 'drop'", ("kinds", "name")),
        ({"kinds": 5}, "kinds: input should be a valid array or an object", ("kinds",)),
        ({"kinds": ["a", 5]}, "kinds[1]: input should be a valid string", ("kinds", 1)),
        ({"most": 0}, "most: input should be greater than or equal to 1 or 'all'", ("most",)),
    ],
)
def test_a_mistake_is_where_it_is_in_the_settings(settings: dict[str, Any], said: str, place: Place) -> None:
    with pytest.raises(UserError) as caught, about("stage.parts[2]", "mark"):
        check(mark, settings, where="stage.parts[2] (mark)", provided=("batch",))
    assert str(caught.value) == f"stage.parts[2] (mark): {said}"
    assert caught.value.place == ("stage", "parts", 2, "mark", *place)
    assert pickle.loads(pickle.dumps(caught.value)).place == caught.value.place  # it may be raised in another process


def test_types_that_are_only_there_for_the_checker_do_not_stand_in_the_way() -> None:
    def gate(evidence: Evidence, *, most: int = 3) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Annotated with a name that is not imported when it runs."""

    assert check(gate, {"most": 2}, where="x", provided=("evidence",)) == {"most": 2}

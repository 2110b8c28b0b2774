"""What comes in with a call, read field by field; a whole number may come as text, as protobuf's JSON has it."""

from __future__ import annotations

import math
import posixpath
import re
from typing import Any

from treadle.core.errors import UserError
from treadle.core.texts import check_name
from treadle.integrations.mlflow_tracking.problem import invalid

NAME_LENGTH = 250
PARAM_LENGTH = 6_000
TAG_LENGTH = 8_000
_NAME = re.compile(r"[/\w.\- :]*\Z")
_WHOLE = re.compile(r"-?\d{1,19}\Z")
_LARGEST = (1 << 63) - 1
_LATEST = 253_402_300_799_999  # milliseconds; the end of the year 9999
OURS = "treadle."  # tags that begin so are the server's own


class Fields:
    """The fields of one request, or of one object in it; ``where`` names it in messages."""

    def __init__(self, values: Any, where: str = "") -> None:
        if not isinstance(values, dict):
            raise invalid(f"{where or 'the request'}: expected a JSON object")
        self._values = values
        self._where = where

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, default: str = "", *, most: int = 1 << 20) -> str:
        """A text, at most so many characters."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool | int | float):
            value = str(value)
        if not isinstance(value, str):
            raise self._wrong(name, value, "expected a text")
        if len(value) > most:
            raise invalid(f"'{self._where}{name}' exceeds the maximum length of {most} characters")
        return value

    def needed(self, *names: str, most: int = 1 << 20) -> str:
        """A text under the first of these names that is there and not empty."""
        for name in names:
            value = self.text(name, most=most)
            if value:
                return value
        raise invalid(f"Missing value for required parameter '{self._where}{names[0]}'.")

    def whole(self, name: str, default: int = 0, *, least: int = -_LARGEST - 1, most: int = _LARGEST) -> int:
        """A whole number of 64 bits."""
        value = self._values.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, str) and _WHOLE.match(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, "expected a whole number")
        if not least <= value <= most:
            raise self._wrong(name, value, f"expected a number from {least} to {most}")
        return value

    def moment(self, name: str, default: int = 0) -> int:
        """Milliseconds since 1970."""
        return self.whole(name, default, least=0, most=_LATEST)

    def number(self, name: str) -> float:
        """A number, or what is none: ``NaN``, ``Infinity``, ``-Infinity``, also as texts."""
        value = self._values.get(name)
        if value is None:
            raise invalid(f"Missing value for required parameter '{self._where}{name}'.")
        try:
            return float("" if isinstance(value, bool) else value)
        except (ValueError, TypeError, OverflowError):
            raise self._wrong(name, value, "expected a number of 64 bits") from None

    def flag(self, name: str) -> bool:
        """True or false, also as a text."""
        return self._values.get(name) in (True, "true", "True")

    def texts(self, name: str, *, most: int = 10_000) -> list[str]:
        """A list of texts; one text stands for a list of it."""
        value = self._values.get(name)
        if value is None:
            return []
        found = value if isinstance(value, list) else [value]
        if len(found) > most or not all(isinstance(each, str | int) for each in found):
            raise self._wrong(name, "", f"expected a list of at most {most} texts")
        return [str(each) for each in found]

    def objects(self, name: str, *, most: int) -> list[Fields]:
        """A list of objects."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, "", "expected a list")
        if len(value) > most:
            raise invalid(f"A batch logging request can contain at most {most} {name}. Got {len(value)} {name}.")
        return [Fields(each, f"{self._where}{name}[{place}].") for place, each in enumerate(value)]

    def object(self, name: str) -> Fields:
        """An object; empty where there is none."""
        return Fields(self._values.get(name) or {}, f"{self._where}{name}.")

    def _wrong(self, name: str, value: Any, why: str) -> Exception:
        shown = str(value)[:100]
        return invalid(f"Invalid value '{shown}' for parameter '{self._where}{name}' supplied: {why}")


def name_of(fields: Fields, field: str = "key") -> str:
    """The name of a setting, a metric or a tag; refused where MLflow refuses it, or Treadle cannot search for it."""
    name = fields.text(field)
    if not name:
        raise invalid(f"Missing value for required parameter '{field}'. A key name must be provided.")
    if not _NAME.match(name):
        raise invalid(
            f"Invalid value '{name[:100]}' for parameter '{field}' supplied: Names may only contain alphanumerics, "
            "underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        )
    plain = posixpath.normpath(name)
    if plain != name or plain == "." or plain.startswith(("..", "/")):
        raise invalid(
            f"Invalid value '{name[:100]}' for parameter '{field}' supplied: Names may be treated as files in certain "
            f"cases, and must not resolve to other names. This name would resolve to {plain[:100]!r}"
        )
    if len(name) > NAME_LENGTH:
        raise invalid(f"'{field}' exceeds the maximum length of {NAME_LENGTH} characters")
    try:
        return check_name(field, name)
    except UserError as error:
        raise invalid(str(error)) from None


def tags_of(fields: Fields, *, most: int = 100, length: int = TAG_LENGTH) -> dict[str, str]:
    """The tags that come with a call."""
    return dict(tag_of(each, length=length) for each in fields.objects("tags", most=most))


def tag_of(fields: Fields, *, length: int = TAG_LENGTH) -> tuple[str, str]:
    """One tag."""
    name = name_of(fields)
    if name.startswith(OURS):
        raise invalid(f"Invalid value '{name}' for parameter 'key' supplied: tags that begin with {OURS} are Treadle's")
    return name, fields.text("value", most=length)


def finite(value: float) -> float | str:
    """A number as protobuf's JSON has it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def page(found: list[Any], fields: Fields, size: int) -> tuple[list[Any], dict[str, str]]:
    """The part of a list that a token asks for, and the token of the next part."""
    token = fields.text("page_token", most=20)
    if token and not token.isdecimal():
        raise invalid("Invalid page token, decoding failed")
    start = int(token or 0)
    more = {"next_page_token": str(start + size)} if len(found) > start + size else {}
    return found[start : start + size], more

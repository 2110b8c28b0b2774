"""Views become HTML or JSON. Everything that is shown is text: escaped, and with what cannot be seen made visible."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from treadle.console import loom
from treadle.core.runs import SYSTEM

_FOLDER = Path(__file__).parent
STATIC = _FOLDER / "static"

# Controls, halves of surrogate pairs, and what turns the direction of text or takes no room: a reader must see them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with every character that does not show, or that would hide others, written out."""
    return _HIDDEN.sub(_written_out, text.replace("\r\n", "\n"))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def plain(value: Any) -> Any:
    """A view as JSON: dataclasses by their fields, numbers that JSON has not as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not -1e308 < value < 1e308:
        return None
    return value


def as_json(value: Any) -> bytes:
    """The bytes of a view's JSON."""
    return json.dumps(plain(value), indent=1, allow_nan=False).encode()


class Renderer:
    """Templates with one way to write an address; ``prefix`` is where the console is mounted."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._versions: dict[str, str] = {}
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {"url": self.url, "static": self.static, "to": self.to, "loom": loom, "zip": zip}
        self._environment.filters |= {
            "number": number,
            "figure": figure,
            "percent": percent,
            "duration": duration,
            "size": size,
            "short": short,
            "value": setting,
            "exact": exact,
            "ago": ago,
        }
        self._environment.tests |= {"ref": is_reference, "system": lambda name: name.startswith(SYSTEM)}

    def html(self, template: str, **context: Any) -> str:
        """A whole page."""
        return self._environment.get_template(template).render(context)

    def url(self, path: str, **query: Any) -> str:
        """An address within the console; parameters that are None or empty are left out."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return quote(self.prefix + path, safe="/@:%") + ("?" + urlencode(given, errors="replace") if given else "")

    def to(self, reference: str) -> str:
        """Where something is shown, by its reference."""
        if reference.startswith("int-"):
            return self.url(f"/interactions/{reference}")
        if reference.startswith("run-"):
            return self.url(f"/runs/{reference}")
        return self.url("/lineage", ref=reference)

    def static(self, name: str) -> str:
        """A file that comes with the console; its address changes when it does."""
        if name not in self._versions:
            self._versions[name] = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
        return f"{self.prefix}/static/{name}?v={self._versions[name]}"


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def is_reference(text: str) -> bool:
    """Whether a text is a reference that leads somewhere."""
    return bool(re.match(r"(?:int-|run-|b3:|doc:|(?:model|dataset)(?:/[\w.-]+)?@)", text))


def exact(moment: str) -> str:
    """A moment to the second; what is none as it is."""
    time = _time(moment)
    return time.strftime("%Y-%m-%d %H:%M:%S UTC") if time else moment


def ago(moment: str) -> str:
    """A moment as people say it."""
    time = _time(moment)
    return _ago((datetime.now(UTC) - time).total_seconds(), exact(moment)) if time else moment


def _time(moment: str) -> datetime | None:
    try:
        return datetime.fromisoformat(moment).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _ago(seconds: float, exact: str) -> str:
    if seconds < -5:
        return exact
    if seconds < 45:
        return "just now"
    for most, unit, word in ((3_600, 60, "min"), (86_400, 3_600, "h"), (2_592_000, 86_400, "d")):
        if seconds < most:
            return f"{max(1, round(seconds / unit))} {word} ago"
    return exact[:10]


def number(value: float | None) -> str:
    """A count, with separators."""
    return "\u2013" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.0f}"


def figure(value: Any) -> str:
    """A measured number with four digits; anything else as a setting."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return setting(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e9):
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e12 else f"{value:.4g}"


def percent(value: float | None) -> str:
    """A share."""
    return "\u2013" if value is None else f"{value:.0%}"


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "\u2013"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.1f} h"


def size(count: int | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "\u2013"
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    place = 0
    while value >= 1000 and place < len(units) - 1:
        value, place = value / 1000, place + 1
    return f"{value:.0f} {units[place]}" if place == 0 or value >= 10 else f"{value:.1f} {units[place]}"


def short(reference: str | None) -> str:
    """A reference short enough for a table: eight digits of a digest, a version without its project's name."""
    if not reference:
        return "\u2013"
    if reference.startswith("b3:"):
        return reference[:11]
    if reference.startswith("k3:"):
        return reference[3:9]
    if re.match(r"(?:int|run|doc)[-:][0-9A-Za-z]{20,}", reference):
        return reference[:4] + "\u2026" + reference[-6:]
    return re.sub(r"\A(model|dataset)/[^@]{1,64}@", r"\1@", reference)


def setting(value: Any) -> str:
    """A setting as the file would have it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

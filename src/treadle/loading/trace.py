"""When requests came and how long they were: a recorded trace, or made at a rate."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

JOURNAL = "journal"
_MOST = 5_000_000  # requests of one trace
_MOST_BYTES = 2 << 30
_LONGEST_LINE = 8 << 20
_MOST_TOKENS = 10_000_000
_APART = 30.0  # seconds within which one more like a recorded request comes, before it or after
# The names that a JSON line may have for each field; of Treadle's own, of Mooncake's traces, of the Azure columns.
_PROMPT = ("prompt_tokens", "input_length", "ContextTokens")
_ANSWER = ("answer_tokens", "completion_tokens", "output_length", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request ``at`` seconds after the first; ``prompt`` and ``answer`` in tokens. ``text`` is asked where known."""

    at: float
    prompt: int
    answer: int
    text: str | None = None


def steady(rate: float, seconds: float, *, prompt: int, answer: int, seed: int) -> list[Arrival]:
    """Requests that come by chance, ``rate`` a second on average, as from many people who know nothing of each other
    (a Poisson process)."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    found, at = [], draw.expovariate(rate)
    while at < seconds:
        found.append(Arrival(at, prompt, answer))
        at += draw.expovariate(rate)
    return found


def scaled(
    arrivals: Sequence[Arrival], *, speed: float, seconds: float | None, prompt: int | None, answer: int | None
) -> list[Arrival]:
    """The trace ``speed`` times as fast, its first ``seconds`` of that, with no more tokens than these."""
    return [
        replace(
            each,
            at=each.at / speed,
            prompt=min(each.prompt, prompt or each.prompt),
            answer=min(each.answer, answer or each.answer),
        )
        for each in arrivals
        if seconds is None or each.at / speed < seconds
    ]


def busier(arrivals: Sequence[Arrival], times: float, *, seed: int = 0) -> list[Arrival]:
    """The trace with ``times`` as many requests, as of so many times the users: each comes again within half a minute
    of when it came, so that its minutes keep their shape. Below 1, that part of them is left. Raises ``UserError``
    when that is more than can be held."""
    if len(arrivals) * times > _MOST:
        raise UserError(
            f"{len(arrivals) * times:,.0f} requests; at most {_MOST:,}: a smaller --times, or a shorter --for"
        )
    whole = int(times)
    some = round(len(arrivals) * (times - whole))
    more = [*arrivals] * (whole - 1) + [arrivals[place * len(arrivals) // some] for place in range(some)]
    if not whole:
        return more or [arrivals[0]]
    draw = random.Random(seed)  # noqa: S311 - no secret
    last = arrivals[-1].at
    apart = min(_APART, last / 2)
    found = [*arrivals]
    for each in more:
        at = abs(each.at + draw.uniform(-apart, apart))  # what would come before the start or after the end turns back
        found.append(replace(each, at=min(at, 2 * last - at)))
    return sorted(found, key=lambda each: each.at)


def read_trace(path: Path) -> list[Arrival]:
    """The arrivals of a CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens`` (the Azure traces) or of JSON lines, both
    also as ``.gz``; in order, from 0. Raises ``UserError`` with the line that is at fault."""
    try:
        rows = _csv_rows(path) if ".csv" in path.suffixes else _json_rows(path)
        return _in_order(rows, path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected a trace, .csv or .jsonl, also .gz") from None
    except (EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected UTF-8 text, as .gz or not") from None


def from_interactions(interactions: Iterable[Any]) -> list[Arrival]:
    """What a project's own users asked, as its journal has it; the last message's text where it was kept."""
    found = []
    for each in interactions:
        text = each.messages[-1]["content"] if each.messages else None
        answer = max(1, each.tokens.completion)
        found.append((_moment(each.time), Arrival(0.0, max(1, each.tokens.prompt), answer, text)))
        if len(found) > _MOST:
            raise UserError(f"the journal has more than {_MOST:,} interactions; write those you want as JSON lines")
    if not found:
        raise UserError("the journal has no interaction yet; give a trace file, or --rate")
    return _from_zero(found)


def _in_order(rows: Iterator[tuple[float, int, int, str | None]], path: Path) -> list[Arrival]:
    found = [(at, Arrival(0.0, prompt, answer, text)) for at, prompt, answer, text in rows]
    if not found:
        raise UserError(f"{path}: no request in it; expected one a line")
    return _from_zero(found)


def _from_zero(found: list[tuple[float, Arrival]]) -> list[Arrival]:
    found.sort(key=lambda pair: pair[0])
    first = found[0][0]
    return [replace(each, at=at - first) for at, each in found]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        size = 0
        for number in count(1):
            line = file.readline(_LONGEST_LINE + 1)
            size += len(line)
            if len(line) > _LONGEST_LINE or size > _MOST_BYTES or number > _MOST:
                raise UserError(f"{path}:{number}: too large; at most {_MOST:,} requests of {_LONGEST_LINE:,} bytes")
            if not line:
                return
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")


def _csv_rows(path: Path) -> Iterator[tuple[float, int, int, str | None]]:
    wanted = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    places: list[int] = []
    for number, line in _lines(path):
        cells = next(csv.reader(io.StringIO(line)), [])
        if number == 1:
            if missing := [name for name in wanted if name not in cells]:
                raise UserError(f"{path}:1: no column {', '.join(missing)}; expected {','.join(wanted)}")
            places = [cells.index(name) for name in wanted]
        elif cells:
            where = f"{path}:{number}"
            if len(cells) <= max(places):
                raise UserError(f"{where}: {len(cells)} cells; expected as many as the first line has")
            time, prompt, answer = (cells[place] for place in places)
            yield _time(time, where), _tokens(prompt, where), _tokens(answer, where), None


def _json_rows(path: Path) -> Iterator[tuple[float, int, int, str | None]]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: no JSON ({str(error)[:100]}); expected an object a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object such as {{'at': 1.5, 'prompt_tokens': 90}}")
        text = row.get("prompt")
        if text is not None and not isinstance(text, str):
            raise UserError(f"{where}: prompt: expected a text")
        prompt = _one_of(row, _PROMPT, where, needed=text is None)
        yield _json_time(row, where), prompt, _one_of(row, _ANSWER, where, needed=True), text


def _json_time(row: dict[str, Any], where: str) -> float:
    if "at" in row:  # seconds
        return _number(row["at"], where, "at")
    time = row.get("timestamp", row.get("time"))
    if isinstance(time, int | float) and not isinstance(time, bool):
        return _number(time, where, "timestamp") / 1000  # milliseconds, as in Mooncake's traces
    if not isinstance(time, str):
        raise UserError(f"{where}: no time; expected `at` in seconds, or `timestamp` as a date or in milliseconds")
    return _time(time, where)


def _number(value: object, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e15:
        raise UserError(f"{where}: {name}: expected a number")
    return float(value)


def _one_of(row: dict[str, Any], names: Sequence[str], where: str, *, needed: bool) -> int:
    for name in names:
        if name in row:
            return _tokens(row[name], where)
    if needed:
        raise UserError(f"{where}: none of {', '.join(names)}; expected a number of tokens")
    return 1


def _tokens(value: object, where: str) -> int:
    good = isinstance(value, int) or (isinstance(value, str) and value.strip().isascii() and value.strip().isdigit())
    tokens = int(str(value)[:12]) if good and not isinstance(value, bool) else -1
    if not 0 <= tokens <= _MOST_TOKENS:
        raise UserError(f"{where}: expected a number of tokens from 0 to {_MOST_TOKENS:,}")
    return max(1, tokens)  # nothing can be asked for no token


def _time(text: str, where: str) -> float:
    try:
        return _moment(text)
    except (ValueError, OverflowError):
        raise UserError(f"{where}: expected a time such as 2023-11-16 18:15:46.68") from None


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

"""One mail (RFC 5322): its text, subject, date and sender; attachments by name, or read by their own readers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from email.utils import parseaddr, parsedate_to_datetime
from typing import Any

from treadle.text.readers import html
from treadle.text.readers.catalog import reader_of
from treadle.text.readers.decoding import decode
from treadle.text.readers.piece import Documents, Piece, Text, Unreadable, UnreadableError
from treadle.text.readers.sniff import DOCUMENTS, HEAD, TEXTS, sniff

_DEEPEST = 5  # mails within mails
_MOST_PARTS = 1000
_WROTE = re.compile(r"^(?:On|Am|Le|El|Il|Op) .{5,200}(?:wrote|schrieb|écrit|escribió|scritto|schreef).{0,80}:\s*$")
_ORIGINAL = re.compile(r"(?i)^\s*-{2,}\s*(?:Original Message|Forwarded message|Ursprüngliche Nachricht)\s*-{2,}\s*$")
_CHARSET = re.compile(r"[A-Za-z0-9._:-]{2,40}\Z")


def read(data: bytes, options: Documents) -> Iterator[Piece]:
    """The mail's own text, then what is attached when ``options.attachments`` is ``read``."""
    yield from _mail(data, options, 0)


def _mail(data: bytes, options: Documents, depth: int) -> Iterator[Piece]:
    message = message_from_bytes(data)
    if not message.keys():
        raise UnreadableError("not a mail: it has no headers")
    parts = _leaves(message)
    bodies, attached = _sorted(parts)
    subject = _header(message, "Subject")
    listed = [_listed(part) for part in attached]
    fields: dict[str, Any] = {"attachments": listed} if listed else {}
    text = "\n\n".join(filter(None, (_text(part, options) for part in bodies)))
    if not text.strip() and not (subject and attached):
        reason = "a mail without text" if parts else "a mail without a body that can be read"
        yield Unreadable(reason)
    else:
        person = _sender(message)
        yield Text(text or subject or "", title=subject, time=_date(message), person=person, fields=fields)
    if options.attachments == "read":
        for number, part in enumerate(attached, start=1):
            yield from _attachment(part, number, options, depth)


def _leaves(message: Message) -> list[Message]:
    """Parts that hold something, in order; a mail within a mail is one part."""
    found: list[Message] = []
    waiting = [message]
    while waiting and len(found) < _MOST_PARTS:
        part = waiting.pop()
        inner = part.get_payload()
        if part.get_content_type() == "message/rfc822" or not isinstance(inner, list):
            found.append(part)
        elif part.get_content_type() == "multipart/alternative":
            waiting.extend(reversed(_alternative([each for each in inner if isinstance(each, Message)])))
        else:
            waiting.extend(reversed([each for each in inner if isinstance(each, Message)]))
    return found


def _alternative(parts: list[Message]) -> list[Message]:
    """Of several forms of one text the plain one, else the first that holds text."""
    for wanted in ("text/plain", "text/html"):
        for part in parts:
            if part.get_content_type() == wanted and (part.get_payload(decode=True) or b"").strip():  # type: ignore[union-attr]
                rest = [each for each in parts if not each.get_content_type().startswith("text/")]
                return [part, *(each for each in rest if _named(each))]
    return parts


def _sorted(parts: list[Message]) -> tuple[list[Message], list[Message]]:
    """Parts that are the mail's text, and attachments."""
    bodies = [
        part
        for part in parts
        if part.get_content_type() in ("text/plain", "text/html")
        and not _named(part)
        and part.get_content_disposition() != "attachment"
    ]
    return bodies, [part for part in parts if part not in bodies]


def _text(part: Message, options: Documents) -> str:
    data = _bytes(part)
    if not data.strip():
        return ""
    declared = part.get_param("charset")
    charset = declared if isinstance(declared, str) and _CHARSET.match(declared) else None
    if part.get_content_type() == "text/html":
        try:
            return html.page(data, options, charset, whole=True).text
        except UnreadableError:
            return ""
    text = decode(data, charset)[0].replace("\r\n", "\n").strip()
    return text if options.quoted else _own_words(text)


def _own_words(text: str) -> str:
    """Without what is quoted of others, and without what follows the word that the rest is an older mail."""
    lines: list[str] = []
    for line in text.split("\n"):
        if _ORIGINAL.match(line):
            break
        if not line.startswith(">") and not _WROTE.match(line):
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _bytes(part: Message) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _attachment(part: Message, number: int, options: Documents, depth: int) -> Iterator[Piece]:
    name = _named(part) or f"part-{number}"
    place = f"!/{name}"
    inner = part.get_payload()
    within = inner[0] if part.get_content_type() == "message/rfc822" and isinstance(inner, list) and inner else None
    data = within.as_bytes() if isinstance(within, Message) else _bytes(part)
    kind = "eml" if isinstance(within, Message) else sniff(name, data[:HEAD]).name
    if kind not in (*DOCUMENTS, *TEXTS):
        known = ", ".join((*DOCUMENTS, *TEXTS))
        yield Unreadable(f"an attachment ({part.get_content_type()}) no reader is for; known: {known}", part=place)
        return
    if kind == "eml" and depth >= _DEEPEST:
        yield Unreadable(f"mails within mails deeper than {_DEEPEST}", part=place)
        return
    try:
        for piece in _mail(data, options, depth + 1) if kind == "eml" else reader_of(kind)(data, options):
            if isinstance(piece, Unreadable):
                yield replace(piece, part=place + piece.part)
            else:
                raw = data if piece.raw is None else piece.raw
                fields = {"format": kind, **piece.fields}
                yield replace(piece, part=place + piece.part, raw=raw, fields=fields)
    except UnreadableError as error:
        yield Unreadable(str(error), part=place)


def _listed(part: Message) -> dict[str, Any]:
    return {"name": _named(part) or "", "type": part.get_content_type(), "bytes": len(_bytes(part))}


def _named(part: Message) -> str | None:
    try:
        name = part.get_filename()
    except (ValueError, LookupError, TypeError, IndexError):
        return "unnamed"
    return None if name is None else _unfolded(name).replace("\\", "/").rpartition("/")[2][:200] or "unnamed"


def _header(message: Message, name: str) -> str | None:
    value = message.get(name)
    return None if value is None else _unfolded(value)[:1000] or None


def _unfolded(value: Any) -> str:
    """A header as text; one that is encoded wrongly as well as it can be read."""
    words: list[str] = []
    try:
        pieces = decode_header(value)
    except (ValueError, LookupError, IndexError, TypeError):
        pieces = [(str(value), None)]
    for piece, charset in pieces:
        raw = piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogateescape")
        try:
            words.append(decode(raw, charset if charset != "unknown-8bit" else None)[0])
        except UnreadableError:
            words.append(raw.decode("ascii", "replace"))
    return " ".join("".join(words).replace("\x00", "").split())


def _sender(message: Message) -> str | None:
    value = _header(message, "From")
    if value is None:
        return None
    name, address = parseaddr(value)
    return (address or name or value).strip().lower() or None


def _date(message: Message) -> str | None:
    with suppress(ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return parsedate_to_datetime(str(message.get("Date"))).isoformat()
    return None

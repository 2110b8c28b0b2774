"""The API keys of a project, for a server that runs without it: in a container, a pod, an application of Ray Serve.

Such a server is given the database of the project's ledger, a PostgreSQL, by a URL in its environment, for that is a
secret. Keys, scopes and limits are then those of the project, as on a server of its own, and what keys use is counted
together with all other servers. It reads keys, and writes what they used and that it lives; it makes no table, no key
and no row of the ledger. What it answers it records for itself, as without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

from treadle.core.duration import parse_seconds
from treadle.core.errors import UserError
from treadle.core.ledger_url import SCHEMES
from treadle.core.opening import open_as_guest
from treadle.core.state import Leases
from treadle.record.api_key import KnownKeys
from treadle.record.api_key_use import UNCOUNTED, ApiKeyUse
from treadle.record.record import Record

VARIABLE = "TREADLE_KEYS_DATABASE"  # the URL, with the role's password where need be
DEGRADE = "TREADLE_DEGRADE_FOR"
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
NEEDS = {"meta": ("SELECT",), "api_keys": ("SELECT",), "api_key_use": _ALL, "leases": _ALL}  # granted by its owner
_ANSWER = 10.0  # seconds for an answer of the database


@contextmanager
def project_keys(record: Record) -> Iterator[ApiKeyUse | None]:
    """The keys of the project whose database the environment names; None where it names none. What cannot be counted
    is noted beside the journal of ``record``. ``UserError`` where that database cannot be used."""
    if VARIABLE not in os.environ:
        yield None
        return
    url = os.environ[VARIABLE].strip()  # a secret that was a file ends with its line
    _check(url)
    try:
        database = open_as_guest(url, NEEDS)
    except UserError as error:
        raise UserError(f"{VARIABLE}: {error}") from None
    with closing(database):
        database.bound(_ANSWER)  # one that hangs is one that is away
        yield ApiKeyUse(database, Leases(database), KnownKeys(database), record.workspace.root / UNCOUNTED)


def read_degrade(text: str | None) -> float:
    """For how long keys are good while their database is away; 0 for not at all. ``UserError`` for what is no time, or
    where there is no such database."""
    if not text:
        return 0.0
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise UserError(f"{DEGRADE} {text[:40]!r}: {error}") from None
    if VARIABLE not in os.environ:
        raise UserError(f"{DEGRADE}: {VARIABLE} is not set, so there is no database that could be away; leave it out")
    return seconds


def _check(url: str) -> None:
    """``UserError`` for another kind of URL, or one that is not read as it was meant. Nothing of it is quoted, for a
    password may stand anywhere in it."""
    expected = "expected postgresql://USER:PASSWORD@HOST/DATABASE, of the project's ledger"
    if not url:
        raise UserError(f"{VARIABLE} is empty; {expected}")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in SCHEMES or "://" not in url:
        raise UserError(f"{VARIABLE} is no URL of a PostgreSQL; {expected}")
    if url.count("@") > min(1, parts.netloc.count("@")):  # a part of the password would be taken for host or database
        raise UserError(
            f"{VARIABLE} has an @ in the wrong place; in a user's name and a password write %40 for @, %2F for /, %3F"
            " for ? and %23 for #"
        )

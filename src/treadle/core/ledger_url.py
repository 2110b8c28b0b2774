"""The URL of a ledger in PostgreSQL: what is allowed in it, and how it is shown.

    postgresql://host:5432/db        and every parameter that libpq knows, after a question mark

A password never stands in it: it comes from the environment (PGPASSWORD, PGPASSFILE, a service file), or the whole URL
does (``${env:NAME}``).
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.%/-]*)(?::\d*)?")
SCHEMES = ("postgresql", "postgres")
_SECRETS = ("password", "sslpassword", "oauth_client_secret")


def is_url(text: str) -> bool:
    """Whether it names a server rather than a file."""
    return "://" in text


def check(text: str) -> str:
    """The same text; ``ValueError`` for another scheme or a password in it, without quoting it."""
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        raise ValueError("expected a URL such as postgresql://host/db") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"expected a file, or a URL such as postgresql://host/db, got {parts.scheme}://")
    if password is not None or any(name.lower() in _SECRETS for name, _ in parse_qsl(parts.query, True)):
        raise ValueError("a password does not stand in the URL; give it by PGPASSWORD, PGPASSFILE or a service file")
    return text


def shown(url: str) -> str:
    """The URL as messages name it: server and database, and the schema where one is named."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    place = parts.netloc.rpartition("@")[2] or given.get("host", "")
    if place.startswith("/"):
        place = ""  # a socket's folder
    if not all(_HOST.fullmatch(host) for host in place.split(",")):
        place = "..."  # a password with characters that have to be escaped in a URL
    name = parts.path.strip("/") or given.get("dbname", "")
    service = f" (service {given['service']})" if "service" in given else ""
    schema = given.get("options", "").partition("search_path=")[2].split(" ")[0]
    return f"postgresql://{place}/{name}{service}" + (f" (schema {schema})" if schema else "")

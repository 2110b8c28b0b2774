"""Where a teacher is and the key it asks for, checked before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.core.secrets import is_reference, resolve

_LOCAL = ("127.0.0.1", "::1", "localhost")


def check_endpoint(url: str, api_key: str | None, where: str) -> None:
    """``UserError`` for an address that is none or has a login in it, a key in the file, or a key sent in the clear."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
        plain = parts.port != 0 and "@" not in parts.netloc and not parts.query and not parts.fragment
        host.encode("idna").decode("idna")
    except ValueError:
        scheme, host, plain = "", "", False
    if scheme not in ("http", "https") or not host or not plain or not url.isprintable() or " " in url:
        raise no_address(where)
    if api_key is not None and not is_reference(api_key):
        raise UserError(f"{where}.api_key: a key does not stand in the file; write `api_key: ${{env:NAME}}`")
    if api_key is not None and scheme == "http" and host not in _LOCAL:
        raise UserError(f"{where}.url: a key is sent over https only; give an address that begins with https://")


def no_address(where: str) -> UserError:
    """What is said of an address that is none."""
    return UserError(f"{where}.url: expected an address such as https://host/v1, without a login in it")


def key_of(reference: str, where: str) -> str:
    """The key; ``UserError`` for what no header can hold."""
    key = resolve(reference)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            f"{where}.api_key: the value of {reference} has a line break, a space or a letter that no key has; export"
            " the key alone"
        )
    return key

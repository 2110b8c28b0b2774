"""How OpenLineage events travel, as the variables and the file of OpenLineage's own client say: HTTP or a file.

OPENLINEAGE_URL  OPENLINEAGE_ENDPOINT  OPENLINEAGE_API_KEY          HTTP, to api/v1/lineage by default
OPENLINEAGE_CONFIG                                                  a file with ``transport: {type: http | file}``
OPENLINEAGE__TRANSPORT__TYPE, __URL, __ENDPOINT, __LOG_FILE_PATH    the same without a file
OPENLINEAGE_DISABLED=true                                           none
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import yaml

from treadle.core.errors import MissingExtra, UserError
from treadle.core.sink import Unavailable

if TYPE_CHECKING:
    import httpx

Event = Mapping[str, Any]

_NESTED = "OPENLINEAGE__TRANSPORT__"
_LARGEST_FILE = 1 << 20  # bytes of a configuration
_SECONDS = 30.0


class Transport(Protocol):
    """Where events go."""

    place: str

    def send(self, events: Sequence[Event], *, again: bool) -> list[str]:
        """Send events in order; what is refused for good is told, a line each."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def configured(folder: Path) -> Transport | None:
    """What the environment says, or None where it says nothing; a relative path lies in ``folder``."""
    environment = os.environ
    if environment.get("OPENLINEAGE_DISABLED", "").lower() == "true":
        return None
    found = _file(environment.get("OPENLINEAGE_CONFIG"), folder)
    for name, value in environment.items():
        if name.startswith(_NESTED):
            found[name.removeprefix(_NESTED).lower()] = value
    url = environment.get("OPENLINEAGE_URL")
    if url:
        key = environment.get("OPENLINEAGE_API_KEY")
        found = {"type": "http", "url": url, "endpoint": environment.get("OPENLINEAGE_ENDPOINT"), "api_key": key}
    return _transport(found, folder) if found else None


def _file(name: str | None, folder: Path) -> dict[str, Any]:
    if not name:
        return {}
    path = folder / name
    try:
        with path.open(encoding="utf-8") as file:
            value = yaml.safe_load(file.read(_LARGEST_FILE))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"OPENLINEAGE_CONFIG {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    transport = value.get("transport") if isinstance(value, dict) else None
    if not isinstance(transport, dict):
        raise UserError(f"OPENLINEAGE_CONFIG {path} has no transport; expected transport: {{type: http, url: ...}}")
    return dict(transport)


def _transport(settings: Mapping[str, Any], folder: Path) -> Transport | None:
    kind = settings.get("type")
    if kind == "noop":
        return None
    if kind == "file" and settings.get("log_file_path"):
        return FileTransport(folder / str(settings["log_file_path"]))
    if kind == "http" and settings.get("url"):
        return HttpTransport(str(settings["url"]), settings.get("endpoint"), _key(settings))
    raise UserError(
        f"OpenLineage's transport {str(kind)[:40]!r} is not known here; expected type http with url, or type file with "
        "log_file_path"
    )


def _key(settings: Mapping[str, Any]) -> str | None:
    if settings.get("api_key"):
        return str(settings["api_key"])
    auth = settings.get("auth")
    if isinstance(auth, str):
        try:
            auth = json.loads(auth)
        except ValueError:
            raise UserError("OpenLineage's auth is no JSON; expected {type: api_key, apiKey: ...}") from None
    if not isinstance(auth, dict):
        return None
    found = auth.get("apiKey") or auth.get("api_key")
    return str(found) if found else None


class HttpTransport:
    """One event a request, as OpenLineage has it."""

    def __init__(self, url: str, endpoint: str | None, key: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise UserError("OPENLINEAGE_URL: expected http://HOST:PORT without user and password; the key has its own")
        self.place = f"{url.rstrip('/')}/{(endpoint or 'api/v1/lineage').lstrip('/')}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client: httpx.Client | None = None

    def send(self, events: Sequence[Event], *, again: bool) -> list[str]:
        """As ``Transport``. Whoever collects events takes one that is sent twice for the same."""
        told = []
        for event in events:
            status = self._post(event)
            if status in (400, 413, 422):
                told.append(f"{event['eventType']} of {event['job']['name']}: refused with {status}")
            elif not 200 <= status < 300:
                raise Unavailable(f"{self.place} answered {status}; expected a collector of OpenLineage events")
        return told

    def _post(self, event: Event) -> int:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", extra="serve") from None
        if self._client is None:
            self._client = httpx.Client(headers=self._headers, timeout=_SECONDS)
        try:
            return self._client.post(self.place, json=dict(event)).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{self.place} does not answer: {str(error) or type(error).__name__}") from None

    def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            self._client.close()


class FileTransport:
    """One event a line, appended."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._path = path

    def send(self, events: Sequence[Event], *, again: bool) -> list[str]:
        """As ``Transport``. Where some may be there already, the file is read first."""
        there = self._there() if again else set()
        lines = [_line(event) for event in events if _identity(event) not in there]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                torn = file.tell() and not self._ends_whole()
                file.write(b"\n" * bool(torn) + b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}; make it writable") from None
        return []

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def _there(self) -> set[tuple[str, str, str]]:
        found = set()
        try:
            with self._path.open("rb") as lines:
                for each in lines:
                    try:
                        found.add(_identity(json.loads(each)))
                    except (ValueError, KeyError, TypeError):  # torn, or somebody else's
                        continue
        except FileNotFoundError:
            pass
        return found

    def close(self) -> None:
        """Nothing is open between two calls."""


def _identity(event: Event) -> tuple[str, str, str]:
    return event["run"]["runId"], event["eventType"], event["eventTime"]


def _line(event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

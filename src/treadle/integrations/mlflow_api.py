"""The REST API of an MLflow tracking server, as far as a mirror needs it.

Addresses and credentials are those that MLflow's own client reads. The client itself is not needed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from treadle.core.errors import MissingExtra, UserError
from treadle.core.sink import Unavailable

if TYPE_CHECKING:
    import httpx

_API = "/api/2.0/mlflow/"
_LARGEST = 64 << 20  # bytes of an answer
_SECONDS = 30.0
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
_LONGEST_NAME, _LONGEST_TAG = 250, 5_000  # characters
IDENTITY = "treadle-project"  # the header by which a project's own server is known


class Refused(UserError):
    """The server understood and said no. ``code`` is MLflow's, such as ``RESOURCE_DOES_NOT_EXIST``."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class MlflowApi:
    """Calls by the names that MLflow gives them, such as ``runs/create``."""

    def __init__(self, uri: str) -> None:
        self.url, self._login = _split(uri)
        self._client: httpx.Client | None = None

    def get(self, call: str, /, **parameters: Any) -> dict[str, Any]:
        """A call that changes nothing."""
        return self._call("GET", call, params=parameters)

    def post(self, call: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        """A call that changes something."""
        return self._call(method, call, json=body)

    def identity(self) -> str | None:
        """What the server says it is; None where it says nothing, as MLflow itself does."""
        for place in ("/health", "/version"):
            said: str | None = self._ask("GET", place).headers.get(IDENTITY)
            if said:
                return said
        return None

    def _call(self, method: str, call: str, **given: Any) -> dict[str, Any]:
        answer = self._ask(method, _API + call, **given)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.status_code == 200 and isinstance(found, dict):
            return found
        detail = found if isinstance(found, dict) else {}
        told = f"{self.url} answered {call} with {answer.status_code}"
        if answer.status_code in (401, 403):
            raise Unavailable(f"{told}; set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD")
        if answer.status_code in (400, 404, 409) and detail.get("error_code"):
            raise Refused(f"{told}: {str(detail.get('message'))[:200]}", str(detail["error_code"]))
        raise Unavailable(f"{told}; expected an MLflow tracking server")

    def _ask(self, method: str, place: str, **given: Any) -> httpx.Response:
        import httpx

        try:
            answer = self._open().request(method, self.url + place, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{self.url} does not answer: {str(error) or type(error).__name__}") from None
        if len(answer.content) > _LARGEST:
            raise Unavailable(f"{self.url} answered with more than {_LARGEST:,} bytes")
        return answer

    def _open(self) -> httpx.Client:
        if self._client is None:
            try:
                import httpx
            except ImportError:
                raise MissingExtra("httpx", extra="serve") from None
            token, verify = os.environ.get("MLFLOW_TRACKING_TOKEN"), _verify()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            login = None if token else self._login
            self._client = httpx.Client(headers=headers, auth=login, timeout=_SECONDS, verify=verify)
        return self._client

    def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            self._client.close()


def _split(uri: str) -> tuple[str, tuple[str, str] | None]:
    """The address without a login in it, and the login; ``UserError`` where no server can be at it."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = f"{parts.scheme}:" if parts.scheme else "a folder"
        raise UserError(
            f"MLFLOW_TRACKING_URI names no server ({shown}), and a mirror needs one; run: mlflow server, "
            "and set it to http://HOST:PORT"
        )
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or parts.username
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or parts.password
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    url = f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    return url, (user, password) if user and password else None


def _verify() -> Any:
    """Which certificates are trusted."""
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    place = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    if not place:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=place)
    except OSError as error:
        raise UserError(f"MLFLOW_TRACKING_SERVER_CERT_PATH {place}: {error.strerror or error}") from None


def refusals(what: str, call: Callable[[], object]) -> list[str]:
    """What the server refused of one thing, so that the others go on."""
    try:
        call()
    except Refused as error:
        return [f"{what}: {error}"]
    return []


def plain_name(name: str) -> str:
    """A name that MLflow takes."""
    return _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]


def pair(name: str, value: Any, longest: int = _LONGEST_TAG) -> dict[str, str]:
    """A tag or a parameter; what is no text as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"key": plain_name(name), "value": text[:longest]}

"""Vertex AI's REST API (cloud.google.com/vertex-ai/docs/reference/rest/v1), as far as the target ``vertex`` needs it.

As whom: Google's application default credentials; their token goes to Google's own address over https and nowhere else.
``CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM``, the variable that gcloud reads, names another address; on this machine
it is asked without credentials, as emulators are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from treadle.core.errors import MissingExtra, UserError

ADDRESS = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOCAL = ("127.0.0.1", "::1", "localhost")
_LONGEST = 3600.0  # seconds that an operation gets
_PAUSE = 5.0  # seconds between two looks at one, at most
_SECONDS = 120.0  # that an answer gets


class VertexApi:
    """One region's API. ``UserError`` where the platform refuses, or does not answer."""

    def __init__(self, region: str) -> None:
        self._url = (os.environ.get(ADDRESS) or f"https://{region}-aiplatform.googleapis.com").rstrip("/")
        parts = urlsplit(self._url)
        self._local = parts.hostname in _LOCAL
        self._credentials: Any = None
        if parts.username or parts.scheme not in ("http", "https") or (parts.scheme == "http" and not self._local):
            raise UserError(f"{ADDRESS}: expected an address such as https://host, without a login in it")

    def found(self, place: str) -> dict[str, Any] | None:
        """What is at a place; None where nothing is."""
        found: dict[str, Any] | None = self._sent("GET", place, missing=True)
        return found

    def post(self, place: str, body: Mapping[str, Any], **parameters: str) -> Any:
        """The answer to a request."""
        return self._sent("POST", place, body, parameters)

    def patch(self, place: str, body: Mapping[str, Any], mask: str) -> Any:
        """Change the fields that the mask names."""
        return self._sent("PATCH", place, body, {"updateMask": mask})

    def delete(self, place: str) -> Any:
        """Take it away."""
        return self._sent("DELETE", place)

    def done(self, operation: Mapping[str, Any]) -> None:
        """Wait for an operation's end. ``UserError`` when that is a failure, or takes an hour."""
        until, pause = time.monotonic() + _LONGEST, 0.5
        while not operation.get("done"):
            if time.monotonic() > until:
                raise UserError(f"Vertex AI: {operation.get('name')} is not done after {_LONGEST:.0f} s; look there")
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)
            operation = self._sent("GET", str(operation["name"]))
        if operation.get("error"):
            raise UserError(f"Vertex AI: {_line(operation['error'].get('message', 'failed'))}")

    def _sent(
        self,
        method: str,
        place: str,
        body: Mapping[str, Any] | None = None,
        parameters: Mapping[str, str] | None = None,
        *,
        missing: bool = False,
    ) -> Any:
        import httpx

        try:
            said = self._client.request(
                method, f"/v1/{place}", json=body, params=dict(parameters or {}), headers=self._authorization()
            )
            answer = said.json()
        except (httpx.HTTPError, ValueError) as error:
            raise UserError(f"Vertex AI at {self._url}: no answer ({type(error).__name__})") from None
        if missing and said.status_code == 404:
            return None
        if said.status_code != 200:
            told = answer.get("error") if isinstance(answer, dict) else None
            why = told.get("message", "") if isinstance(told, dict) else ""
            raise UserError(f"Vertex AI {method} {place}: {said.status_code} {_line(why)}")
        return answer

    @cached_property
    def _client(self) -> Any:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", extra="vertex") from None
        return httpx.Client(base_url=self._url, timeout=_SECONDS, trust_env=not self._local)

    def _authorization(self) -> dict[str, str]:
        if self._local:
            return {}
        try:
            import google.auth
            from google.auth.transport.requests import Request
        except ImportError:
            raise MissingExtra("google-auth", extra="vertex") from None
        try:
            if self._credentials is None:
                self._credentials = google.auth.default(scopes=[_SCOPE])[0]
            if not self._credentials.valid:
                self._credentials.refresh(Request())
        except google.auth.exceptions.GoogleAuthError as error:
            raise UserError(f"Vertex AI: {_line(str(error))}") from None
        return {"authorization": f"Bearer {self._credentials.token}"}


def _line(text: str) -> str:
    return " ".join(str(text).split())[:400]

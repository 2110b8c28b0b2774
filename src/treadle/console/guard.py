"""The guard: what holds for every request before anybody looks at it, and for every answer before it leaves.

Only this machine's own names are answered where the console is on loopback, so that no page elsewhere can reach it by
a name of its own (DNS rebinding). A form must come from a page of ours. The browser is told to run nothing but our one
script, to show us in no frame, and to keep nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from treadle.console.problem import Problem

Refuse = Callable[[Scope, Problem], ASGIApp]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it a browser hides the origin of our own forms from us.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_QUERY_BYTES = 16_384


class Guard:
    """Wraps the application; ``loopback`` says that only names of this machine are answered."""

    def __init__(self, app: ASGIApp, refuse: Refuse, *, prefix: str, loopback: bool) -> None:
        self._app = app
        self._refuse = refuse
        self._prefix = prefix
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        scope = dict(scope)
        root = scope.get("root_path", "")
        if self._prefix and not root.endswith(self._prefix):  # called as it is, not through a mount
            scope["root_path"] = root + self._prefix
        app = self._app
        try:
            self._admit(scope)
        except Problem as problem:
            app = self._refuse(scope, problem)
        await app(scope, receive, _with_headers(send))

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback and not own_name(host):
            raise Problem(
                421,
                "Not this address",
                "The console answers at 127.0.0.1 and localhost only.",
                "Open the link that treadle console printed.",
            )
        if len(scope.get("query_string", b"")) > _QUERY_BYTES:
            raise Problem(414, "Too long", f"The address is longer than {_QUERY_BYTES:,} bytes")
        if scope["method"] in ("GET", "HEAD"):
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and _place(origin) != host.lower()) or site not in ("same-origin", "none"):
            raise Problem(
                403,
                "From another page",
                "This form was sent by a page that is not the console's. Nothing was written.",
                "Open the console and use the form there.",
            )


def own_name(host: str) -> bool:
    """Whether the ``Host`` of a request is a name that only this machine has."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return answer

"""The web application: which handler answers what, and what holds for all of them."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from treadle.record.api_key import ENDPOINTS
from treadle.serve import metrics
from treadle.serve.client import ClientLeft
from treadle.serve.contracts import contracts
from treadle.serve.contracts.contract import Handler
from treadle.serve.contracts.tensorflow_serving import model_status
from treadle.serve.errors import INVALID, ApiError, internal_error
from treadle.serve.exchange import log_place
from treadle.serve.gateway import Gateway, shutting_down
from treadle.serve.generate import chat, completions
from treadle.serve.incoming import Incoming, check_endpoint, check_model, may_use
from treadle.serve.openapi import document
from treadle.serve.opinions import feedback
from treadle.serve.probes import live, ready
from treadle.serve.release import Serving
from treadle.serve.scoring import rerank, score
from treadle.serve.table import Table
from treadle.serve.tasks import classify, embeddings, tag

Told = Callable[[ApiError], Any]


def create_app(gateway: Gateway, mounts: Mapping[str, ASGIApp] | None = None) -> Starlette:
    """The application in front of one gateway.

    ``mounts``: other ASGI applications by path, such as ``/console``. They are asked with no regard to keys, draining
    and counting here, and get no lifespan events.
    """

    def route(
        path: str,
        handler: Handler,
        method: str,
        *,
        name: str = "",
        scope: str = "",
        is_open: bool = False,
        told: Told = ApiError.body,
    ) -> Route:
        asks = method == "POST" and name != "feedback"
        endpoint = _Endpoint(gateway, handler, name, scope or name, is_open=is_open, asks=asks, told=told)
        return Route(path, endpoint, methods=[method])

    def of_contracts() -> list[Route]:
        return [
            route(
                path.path,
                path.handler,
                path.method,
                name=path.name,
                scope=path.scope,
                is_open=path.is_open,
                told=contract.told,
            )
            for contract in contracts()
            for path in contract.paths
        ]

    app = _Application(
        routes=[
            route("/v1/chat/completions", chat, "POST", name="chat"),
            route("/v1/completions", completions, "POST", name="completions"),
            route("/v1/classify", classify, "POST", name="classify"),
            route("/v1/tag", tag, "POST", name="tag"),
            route("/v1/embeddings", embeddings, "POST", name="embeddings"),
            route("/v1/score", score, "POST", name="score"),
            route("/v1/rerank", rerank, "POST", name="score"),
            route("/v1/feedback", feedback, "POST", name="feedback"),
            route("/v1/models", _models, "GET", name="models"),
            *of_contracts(),
            route("/v1/models/{model:path}", _model, "GET", name="models"),
            route("/metrics", _metrics, "GET", scope="metrics"),
            route("/health/live", live, "GET", is_open=True),
            route("/health/ready", ready, "GET", is_open=True),
            route("/openapi.json", _openapi, "GET", is_open=True),
            *[each for path, mounted in (mounts or {}).items() for each in _mounted(path, mounted)],
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    app.state.gateway = gateway
    app.router.redirect_slashes = False
    return app


class _Application(Starlette):
    """Starlette, but that a path of ours without parameters is found by its name: an `_Endpoint` needs nothing of what
    stands before and around a route, its own errors are answered by itself."""

    def __init__(self, routes: list[BaseRoute], **settings: Any) -> None:
        super().__init__(routes=routes, **settings)
        self._named: dict[tuple[str, str], ASGIApp] = {}
        for route in routes:
            if isinstance(route, Route) and isinstance(route.endpoint, _Endpoint) and not route.param_convertors:
                for method in route.methods or ():
                    self._named.setdefault((method, route.path), route.endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            endpoint = self._named.get((scope["method"], scope["path"]))
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def _mounted(path: str, app: ASGIApp) -> list[BaseRoute]:
    """An application under a path; the bare path leads to its root."""

    async def root(request: Request) -> Response:
        return RedirectResponse(f"{path}/" + (f"?{request.url.query}" if request.url.query else ""), 307)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        """Its failure is logged by its place, as ours are, and leaves the connection in order."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sending)
        except Exception as error:
            log_place(path, error)
            if not begun:
                await PlainTextResponse("The server failed; its log names the place", 500)(scope, receive, send)

    return [Route(path, root, methods=["GET"]), Mount(path, guarded)]


class _Endpoint:
    """What surrounds every handler: the key, draining, errors in one shape, and counting.

    ``name`` is the metrics' label; probes and the like have none and are not counted. ``scope`` is what a key has to be
    for; where a path is another one's alias, what it does is looked at when it is known. ``is_open``: answers without a
    key, also while draining. ``asks``: a model, so that each request counts by the limits of its key, answered or not.
    ``told``: the shape of its errors.
    """

    def __init__(
        self, gateway: Gateway, handler: Handler, name: str, scope: str, *, is_open: bool, asks: bool, told: Told
    ) -> None:
        self.gateway = gateway
        self.handler = handler
        self.name = name
        self.scope = scope
        self.is_open = is_open
        self.asks = asks
        self.told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(self.gateway, scope, receive, send)
        incoming.told = self.told
        try:
            try:
                self._admit(incoming)
                with self.gateway.admitted() if self.name else nullcontext():
                    try:
                        await self.handler(incoming)
                    except ApiError as error:
                        raise (await incoming.counted(error) if self.asks else error) from None
            except ApiError as error:
                incoming.failed = error.code
                await incoming.refuse(error)
        except ClientLeft:
            incoming.status = 499
            incoming.failed = "client_left"
        except asyncio.CancelledError:
            incoming.failed = "cancelled"
            raise
        except Exception as error:
            log_place(incoming.request, error)
            incoming.failed = "internal_error"
            if not incoming.status:
                await incoming.refuse(internal_error())
        finally:
            self._count(incoming)

    def _admit(self, incoming: Incoming) -> None:
        if self.is_open:
            return
        gateway = self.gateway
        sent = [value for name, value in incoming.scope["headers"] if name == b"authorization"]
        incoming.meter = gateway.keyring.find(sent)
        if incoming.meter is not None and self.scope in ENDPOINTS:
            check_endpoint(incoming.meter, self.scope)
        if incoming.meter is not None and self.asks:
            incoming.meter.check()  # before its body is read, or a guardrail has looked at it
        if incoming.meter is None and not _own_origin(incoming.header("origin")):
            # Without a key, any page that the user visits could otherwise talk to the model.
            raise ApiError(403, "Web pages may not call a server without an API key", code="forbidden_origin")
        if incoming.meter is None and not _own_host(incoming.header("host"), gateway.settings.hosts):
            # Nor may a page whose name was made to lead here, which its browser then takes for that page's own server.
            raise ApiError(
                403,
                "A server without an API key answers by addresses and localhost; add this name to deploy.hosts, or make"
                " a key",
                code="forbidden_host",
            )
        if gateway.draining and self.name:
            raise shutting_down()

    def _count(self, incoming: Incoming) -> None:
        if not self.name:
            return
        measured = self.gateway.metrics
        measured.answered(self.name, incoming.status or 500, time.perf_counter() - incoming.arrived)
        if incoming.failed is not None:
            measured.errors.labels(incoming.failed).inc()
            if incoming.key is not None and incoming.status in (401, 403, 429):
                measured.key_refusals.labels(incoming.key, incoming.failed).inc()


@lru_cache(maxsize=256)
def _own_host(host: str | None, known: frozenset[str] | None) -> bool:
    """True for an address, ``localhost`` and what is known: only a name can be made to lead elsewhere. None is nobody's
    browser."""
    if known is None or not host:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or name in known or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _own_origin(origin: str | None) -> bool:
    """True without an origin (not a browser) and for pages of this machine."""
    if origin is None:
        return True
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _models(incoming: Incoming) -> None:
    known = [(each.table, serving) for each in incoming.gateway.models for serving in each.table.answering()]
    shown = [_described(table, serving) for table, serving in known if may_use(incoming.meter, serving)]
    await incoming.reply({"object": "list", "data": shown})


async def _model(incoming: Incoming) -> None:
    asked = incoming.scope["path_params"]["model"]
    model = incoming.gateway.model_of(asked)
    champion = model.serving
    found = champion if asked == champion.release.base else model.table.choose(asked, None).serving
    if incoming.meter is not None:
        check_model(incoming.meter, found)
    await incoming.reply(_described(model.table, found) | model_status(found))


def _described(table: Table, serving: Serving) -> dict[str, Any]:
    release = serving.release
    return {
        "id": release.name,
        "object": "model",
        "created": release.created,
        "owned_by": "treadle",
        "digest": release.digest,
        "aliases": list(release.aliases),
        "share": table.share_of(serving),
        "task": release.task,
        "context_length": serving.engine.context_length,
    }


async def _metrics(incoming: Incoming) -> None:
    await incoming.reply_bytes(incoming.gateway.metrics.render(), metrics.CONTENT_TYPE)


async def _openapi(incoming: Incoming) -> None:
    await incoming.reply(document(keyed=incoming.gateway.keyring.required))


async def _not_routed(request: Request, raised: Exception) -> Response:
    """404 and 405 of the router, in the one shape, and counted."""
    status = raised.status_code if isinstance(raised, HTTPException) else 500
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    said = {404: "No such URL; see /openapi.json", 405: "This URL wants another method; see /openapi.json"}
    code = codes.get(status, "http_error")
    error = ApiError(status, said.get(status, "This request cannot be answered"), type=INVALID, code=code)
    measured = request.app.state.gateway.metrics
    measured.answered("other", error.status, 0.0)
    measured.errors.labels(code).inc()
    body = msgspec.json.encode(error.body())
    return Response(body, error.status, getattr(raised, "headers", None), "application/json")

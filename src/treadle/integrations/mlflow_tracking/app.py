"""The web application: paths, JSON, errors in MLflow's shape, and files that stream.

Answers are worked out in threads, so that one that reads much holds up no other.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from treadle.core.digest import PREFIX
from treadle.core.errors import Corrupt, TreadleError
from treadle.integrations.mlflow_tracking import files
from treadle.integrations.mlflow_tracking.calls import CALLS, Call
from treadle.integrations.mlflow_tracking.fields import Fields
from treadle.integrations.mlflow_tracking.problem import INTERNAL, UNKNOWN_CALL, Problem, invalid
from treadle.integrations.mlflow_tracking.tracker import Tracker
from treadle.record.record import Record

VERSION = "3.17.2"  # the MLflow whose calls these are
PROJECT_HEADER = "Treadle-Project"
LIST = "docs/reference/mlflow.md"
BODY_BYTES = 20 << 20
FILE_BYTES = 64 << 30
_PIECE = 1 << 20
_PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
_FILES = ("/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow-artifacts/artifacts")
_STATUS_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: UNKNOWN_CALL,
                 503: "TEMPORARILY_UNAVAILABLE"}  # fmt: skip

logger = logging.getLogger("treadle.listen")
Handler = Callable[[Request], Awaitable[Response]]


class MlflowTracking:
    """MLflow's REST tracking API: experiments, runs, metrics, artifacts, logged and registered models.

    ``MLFLOW_TRACKING_URI=http://127.0.0.1:5000`` and unchanged code logs here. Uploaded files become one artifact of
    their run. The calls that are served: docs/reference/mlflow.md.
    """

    open_paths = ("/health", "/version")

    def __init__(self, record: Record, *, silence: float) -> None:
        self.tracker = Tracker(record, silence)
        self._settling = files.Settling(self.tracker)
        self._project = {PROJECT_HEADER: record.workspace.keys.project}
        self._app = Starlette(routes=list(self._routes()), exception_handlers={HTTPException: _not_routed})
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)

    def refuse(self, status: int, message: str) -> ASGIApp:
        """The answer to somebody who is not let in."""
        return _json({"error_code": _STATUS_CODES.get(status, "BAD_REQUEST"), "message": message}, status)

    def tick(self) -> None:
        """Called every second or so: files that wait become artifacts."""
        self._settling.look()

    def close(self) -> None:
        """The server ends: nothing waits any more."""
        self._settling.look(at_once=True)

    def _routes(self) -> Iterator[BaseRoute]:
        yield Route("/health", self._health, methods=["GET"])
        yield Route("/version", self._version, methods=["GET"])
        for prefix in _PREFIXES:
            for call in CALLS:
                yield Route(prefix + call.path, _guarded(self._call(call)), methods=[call.method])
        for path in _FILES:
            yield Route(path, _guarded(self._list), methods=["GET"])
            yield Route(path + "/{path:path}", _guarded(self._upload), methods=["PUT"])
            yield Route(path + "/{path:path}", _guarded(self._download), methods=["GET"])
            yield Route(path + "/{path:path}", _guarded(self._delete), methods=["DELETE"])

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("OK", headers=self._project)

    async def _version(self, _request: Request) -> Response:
        return PlainTextResponse(VERSION, headers=self._project)

    def _call(self, call: Call) -> Handler:
        async def answer(request: Request) -> Response:
            given = await _query(request) if request.method == "GET" else await _body(request)
            fields = Fields({**given, **request.path_params})
            if call.quick and self.tracker.lock.acquire(blocking=False):  # a thread would cost more than the call
                try:
                    return _json(call.answer(self.tracker, fields))
                finally:
                    self.tracker.lock.release()
            return _json(await run_in_threadpool(call.answer, self.tracker, fields))

        return answer

    # -- files

    async def _list(self, request: Request) -> Response:
        path = request.query_params.get("path", "")
        return _json(await run_in_threadpool(files.list_at, self.tracker, path))

    async def _upload(self, request: Request) -> Response:
        place = files.place_of(request.path_params["path"])
        folder = await run_in_threadpool(self.tracker.record.store.new_folder, "upload-")
        try:
            digest = await _received(request, folder / "file")
            await run_in_threadpool(files.take, self.tracker, place, folder / "file", digest)
        finally:
            await run_in_threadpool(shutil.rmtree, folder, True)
        return _json({})

    async def _download(self, request: Request) -> Response:
        place = files.place_of(request.path_params["path"])
        entry = await run_in_threadpool(files.found, self.tracker, place)
        file = await run_in_threadpool(self.tracker.record.store.open, entry.digest)
        headers = {"Content-Length": str(entry.size), "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(
            iterate_in_threadpool(_pieces(file)), media_type="application/octet-stream", headers=headers
        )

    async def _delete(self, request: Request) -> Response:
        place = files.place_of(request.path_params["path"])
        await run_in_threadpool(files.delete, self.tracker, place)
        return _json({})


def _guarded(handler: Handler) -> Handler:
    """Errors in one shape; what is ours is logged by its place, without what was sent."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            return _json(problem.body(), problem.status)
        except ClientDisconnect:
            return Response(status_code=400)
        except Corrupt as error:
            return _json(Problem(INTERNAL, str(error)).body(), 500)
        except (TreadleError, OSError) as error:  # such as a full disk: worth another try
            return _json(Problem("TEMPORARILY_UNAVAILABLE", str(error)).body(), 503)
        except Exception as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
            logger.error("%s failed: %s at %s", request.url.path, type(error).__name__, place)  # noqa: TRY400
            return _json(Problem(INTERNAL, "The server failed; its log names the place").body(), 500)

    return answer


async def _query(request: Request) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        given[name] = values if len(values) > 1 else values[0]
    return given


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES:
            raise invalid(f"The request is larger than {BODY_BYTES} bytes; send several")
    if not data:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise Problem("BAD_REQUEST", "The request's body is no JSON") from None
    if not isinstance(found, dict):
        raise Problem("BAD_REQUEST", "The request's body is no JSON object")
    return found


async def _received(request: Request, path: Path) -> str:
    """The body as a file; its digest."""
    hasher, size = blake3(), 0
    with path.open("xb") as file:
        waiting = bytearray()
        async for piece in request.stream():
            waiting += piece
            size += len(piece)
            if size > FILE_BYTES:
                raise invalid(f"The file is larger than {FILE_BYTES} bytes")
            if len(waiting) >= _PIECE:
                await run_in_threadpool(_write, file, hasher, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(_write, file, hasher, bytes(waiting))
    return PREFIX + str(hasher.hexdigest())


def _write(file: BinaryIO, hasher: blake3, data: bytes) -> None:
    hasher.update(data)
    file.write(data)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Response(data, status, media_type="application/json")


async def _not_routed(request: Request, raised: Exception) -> Response:
    """One line that names the call, and where the list is."""
    status = raised.status_code if isinstance(raised, HTTPException) else 500
    told = f"{request.method} {request.url.path[:200]} is not served by Treadle; the calls that are: {LIST}"
    return _json(Problem(UNKNOWN_CALL, told).body(), 404 if status in (404, 405) else status)

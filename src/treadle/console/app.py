"""The console as an ASGI application: by itself on loopback, or mounted under ``/console`` of a server.

By itself it lets in who comes with a one-time link; mounted, who knows the API key. What a page shows and does goes
through the same functions as the command line.
"""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from treadle.approving import Changed
from treadle.console.entrance import Entrance
from treadle.console.forms import check_token, read_form
from treadle.console.front import Front, json_response, wants_json
from treadle.console.guard import Guard
from treadle.console.house import House
from treadle.console.links import Links, Person
from treadle.console.pages import (
    answer,
    answers,
    approvals,
    comparison,
    lineage,
    review,
    run,
    runs,
    side_by_side,
    status,
)
from treadle.console.problem import Problem
from treadle.console.rendering import STATIC, Renderer
from treadle.console.sessions import Session
from treadle.console.visit import Page, Query, Redirect, Visit, local
from treadle.core.account import account_name
from treadle.core.errors import Corrupt, UserError
from treadle.project import open_project

Handler = Callable[[Visit], Page | Redirect]
Endpoint = Callable[[Request], Awaitable[Response]]

FILES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_UNTIL_CHANGED = "public, max-age=31536000, immutable"  # the address carries a digest
_log = logging.getLogger("treadle.console")


def create_console(folder: Path, *, prefix: str = "", api_key: str | None = None, loopback: bool = True) -> Console:
    """The console of the project around ``folder``, which it opens; ``close`` it when it is not needed any longer.

    ``prefix`` is where it is mounted, such as ``/console``; then it asks for ``api_key``, and without one it is refused
    (``UserError``). By itself it takes one-time links. With ``loopback`` it answers to names of this machine only.
    """
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ValueError(f"prefix {prefix!r}: expected a path such as /console")
    if not api_key and (prefix or not loopback):
        raise UserError("the console needs an API key to be reached through the server; set TREADLE_API_KEY")
    return Console(folder, prefix, api_key, loopback=loopback)


class Console:
    """An ASGI application with its project."""

    def __init__(self, folder: Path, prefix: str, api_key: str | None, *, loopback: bool) -> None:
        with ExitStack() as opened:
            self.project = opened.enter_context(open_project(folder))
            self.house = House(self.project)
            opened.callback(self.house.close)
            state = self.project.record.workspace.state
            self.links = Links(state)
            self.links.sweep()
            self._renderer = Renderer(prefix)
            self._front = Front(self._renderer, self.project.file.name)
            # Cookies do not tell ports apart: two projects on one machine must not share a name.
            own = hashlib.sha256(f"{self.project.record.workspace.keys.public} {prefix}".encode()).hexdigest()[:10]
            self._entrance = Entrance(self._front, self.links, self.person, cookie=f"treadle_{own}", api_key=api_key)
            self._files = {name: (STATIC / name).read_bytes() for name in FILES}
            self._app = Guard(self._application(), self._refusal, prefix=prefix, loopback=loopback)
            self._opened = opened.pop_all()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; a lifespan, where the server has one, closes the project."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    def close(self) -> None:
        """Close the project."""
        self._opened.close()

    def person(self, name: str | None = None) -> Person:
        """Who a link is for; without a name, who started this process, as the ledger knows them from commands."""
        runs = self.project.record.runs
        if name is None:
            return Person(account_name(), runs.keyed_actor())
        return Person(name, runs.keys.keyed("actor", name))

    def link(self, name: str | None = None) -> str:
        """The path, with its secret, of a one-time link for a person."""
        return self._renderer.url("/enter", link=self.links.make(self.person(name)))

    # -- routes

    def _application(self) -> Starlette:
        page, entrance = self._page, self._entrance
        app = Starlette(
            routes=[
                Route("/", page(status.status)),
                Route("/runs", page(runs.runs)),
                Route("/runs/{run}", page(run.run)),
                Route("/compare", page(comparison.compare)),
                Route("/compare/runs", page(side_by_side.side_by_side)),
                Route("/interactions", page(answers.answers)),
                Route("/interactions/{interaction}", page(answer.answer)),
                Route("/interactions/{interaction}/feedback", page(answer.give), methods=["POST"]),
                Route("/interactions/{interaction}/case", page(answer.keep), methods=["POST"]),
                Route("/lineage", page(lineage.lineage)),
                Route("/review", page(review.review)),
                Route("/review", page(review.label), methods=["POST"]),
                Route("/approvals", page(approvals.approvals)),
                Route("/approvals/{number:int}", page(approvals.approval)),
                Route("/approvals/{number:int}", page(approvals.decide), methods=["POST"]),
                Route("/appearance", page(_appearance), methods=["POST"]),
                Route("/leave", entrance.leave, methods=["POST"]),
                Route("/enter", entrance.enter),
                Route("/login", entrance.login, methods=["GET", "POST"]),
                Route("/static/{name}", self._static),
            ],
            exception_handlers={HTTPException: self._not_routed, Exception: self._broken},
        )
        app.router.redirect_slashes = False
        return app

    def _page(self, handler: Handler) -> Endpoint:
        async def respond(request: Request) -> Response:
            started = time.perf_counter()
            session = None
            try:
                session = self._entrance.session(request)
                response = await self._answer(request, handler, session)
            except Exception as error:
                response = self._front.trouble(request, _as_problem(error, self.project.folder), session)
            response.headers["Server-Timing"] = f"app;dur={(time.perf_counter() - started) * 1000:.1f}"
            return response

        return respond

    async def _answer(self, request: Request, handler: Handler, session: Session | None) -> Response:
        if session is None:
            return self._entrance.closed(request)
        form = Query()
        if request.method == "POST":
            form = await read_form(request)
            check_token(form, session.csrf)
        visit = Visit(self.house, session, Query(_asked(request.query_params)), form, request.path_params)
        found = await run_in_threadpool(handler, visit)
        if isinstance(found, Page):
            if wants_json(request):
                return json_response(found.view, found.status)
            return await run_in_threadpool(self._front.show, found, session, self._front.here(request))
        if wants_json(request):
            return json_response(found.result if found.result is not None else {"ok": True}, 200)
        session.notice = found.notice
        return RedirectResponse(self._renderer.url("/").removesuffix("/") + found.path, 303)

    # -- answers

    def _refusal(self, scope: Scope, problem: Problem) -> ASGIApp:
        return self._front.trouble(Request(scope), problem)

    async def _not_routed(self, request: Request, raised: Exception) -> Response:
        code = raised.status_code if isinstance(raised, HTTPException) else 500
        said = {404: "There is no such page.", 405: "This page cannot be asked for in this way."}
        session = self._entrance.session(request)
        problem = Problem(code, "Not here", said.get(code, "This cannot be answered."), "Start at the status page.")
        return self._front.trouble(request, problem, session)

    async def _broken(self, request: Request, raised: Exception) -> Response:
        return self._front.trouble(request, _as_problem(raised, self.project.folder))

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        headers = {"Cache-Control": _UNTIL_CHANGED, "Content-Type": FILES[name]}
        return Response(self._files[name], 200, headers)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await run_in_threadpool(self.close)
                await send({"type": "lifespan.shutdown.complete"})
                return


def _asked(given: QueryParams) -> dict[str, str]:
    """The last value of each name; all runs that were ticked, with commas between them."""
    return {**given, "run": ",".join(given.getlist("run"))} if "run" in given else dict(given)


@dataclass(frozen=True)
class Chosen:
    """The appearance that was chosen."""

    appearance: str


def _appearance(visit: Visit) -> Redirect:
    visit.session.appearance = visit.form.choice("appearance", ("auto", "light", "dark"), "auto")
    return Redirect(local(visit.form.text("next", "/")), result=Chosen(visit.session.appearance))


def _as_problem(error: Exception, folder: Path) -> Problem:
    """What people are told of an error; nothing of what is inside unless it was written for them."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Changed):
        todo = "Nothing was written. Look at the page once more and decide then."
        return Problem(409, "Changed meanwhile", _told(error, folder), todo, back="/approvals")
    if isinstance(error, UserError):
        return Problem(400, "Not possible", _told(error, folder))
    if isinstance(error, Corrupt):
        said = "Something in the record is not what was stored."
        return Problem(500, "Damaged", said, "Run treadle verify; it names what was changed.")
    place = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("%s at %s:%s", type(error).__name__, Path(place.filename).name, place.lineno)
    said = "Something went wrong on our side. The server's log has the place."
    return Problem(500, "Our mistake", said, "Try again; if it stays, please report it.")


def _told(error: Exception, folder: Path) -> str:
    text = " ".join(str(error).split()).replace(str(folder), "the project")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")

"""The entrance: who is let in, by a one-time link or by the API key, and who leaves."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from treadle.console.forms import check_token, read_form
from treadle.console.front import Front, wants_json
from treadle.console.links import Links, NotAdmitted, Person
from treadle.console.problem import Problem
from treadle.console.sessions import SESSION_SECONDS, Door, Session, Sessions
from treadle.console.visit import Page, Query, local

_NEW_LINK = "In the project's folder, run treadle console --link: it prints a new one."
_WHY = {
    "unknown": ("No such link", "This link opens nothing. It may have been cut off when it was copied."),
    "used": ("Used already", "This link has been used, and each works once."),
    "expired": ("Expired", "This link is too old; a link works for ten minutes."),
}
_DOOR_SECONDS = 600


@dataclass(frozen=True)
class Entering:
    """Where somebody who was let in goes next."""

    next: str


@dataclass(frozen=True)
class Login:
    """The form that asks for the key; ``token`` belongs to the cookie that comes with it."""

    next: str
    token: str
    wrong: str = ""


class Entrance:
    """Keeps the sessions of one console."""

    def __init__(
        self,
        front: Front,
        links: Links,
        identify: Callable[[str | None], Person],
        *,
        cookie: str,
        api_key: str | None,
    ) -> None:
        self._front = front
        self._links = links
        self._identify = identify
        self._cookie = cookie
        self.sessions = Sessions()
        self.door = Door(api_key) if api_key else None

    def session(self, request: Request) -> Session | None:
        """The session a request belongs to. With a key in ``Authorization``, one for this reading alone."""
        found = self.sessions.find(request.cookies.get(self._cookie, ""))
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if found is None and self.door and scheme.lower() == "bearer" and request.method in ("GET", "HEAD"):
            self._opens(request, given.strip())
            return Session(self._identify("API key"), "", 0, 0)
        return found

    def closed(self, request: Request) -> Response:
        """What somebody sees who is not let in."""
        if self.door is None:
            raise Problem(401, "Please come in by your link", "This console opens with a one-time link.", _NEW_LINK)
        if wants_json(request) or request.method != "GET":
            raise Problem(401, "Who is there?", "Sign in with the API key first", "Send Authorization: Bearer KEY.")
        return RedirectResponse(self._front.renderer.url("/login", next=self._front.here(request)), 303)

    async def enter(self, request: Request) -> Response:
        """Take a one-time link; a mere look at its head does not use it up."""
        if request.method == "HEAD":
            return Response(status_code=200)
        try:
            if self.door is not None:
                raise Problem(404, "Not here", "This console asks for the API key.", "Open its first page.")
            token = Query(dict(request.query_params)).text("link")
            person, link = await run_in_threadpool(self._links.take, token)
        except Problem as problem:
            return self._front.trouble(request, problem)
        except NotAdmitted as refused:
            session = self.session(request)
            if refused.why == "used" and session is not None and session.link == refused.link:
                return self._entered(request, "/", None)  # the same browser, which asked twice
            title, said = _WHY[refused.why]
            return self._front.trouble(request, Problem(403, title, said, _NEW_LINK))
        return self._entered(request, "/", self.sessions.begin(person, link))

    async def login(self, request: Request) -> Response:
        """Show the form, or take the key."""
        try:
            if self.door is None:
                raise Problem(404, "Not here", "This console opens with a one-time link.", _NEW_LINK)
            if request.method != "POST":
                wanted = local(Query(dict(request.query_params)).text("next", "/"))
                return self._form(request, wanted)
            return await self._take_key(request, self.door)
        except Problem as problem:
            return self._front.trouble(request, problem)

    async def _take_key(self, request: Request, door: Door) -> Response:
        form = await read_form(request)
        check_token(form, door.token(request.cookies.get(self._cookie + "_door", "")))
        wanted, name = local(form.text("next", "/")), form.text("name", most=100)
        if not name:
            return self._form(request, wanted, "Please say who you are: decisions are recorded under a digest of it.")
        if not self._opens(request, form.text("key"), tell=False):
            return self._form(request, wanted, "That is not the API key of this server.")
        return self._entered(request, wanted, self.sessions.begin(self._identify(name)))

    async def leave(self, request: Request) -> Response:
        """End the session."""
        session = self.session(request)
        if session is not None:
            try:
                check_token(await read_form(request), session.csrf)
            except Problem as problem:
                return self._front.trouble(request, problem, session)
            self.sessions.end(request.cookies.get(self._cookie, ""))
        todo = _NEW_LINK if self.door is None else "To come back, open the console and sign in."
        page = Page("problem.html", "Signed out", "", Problem(200, "Signed out", "You have left the console.", todo))
        response = self._front.show(page, None)
        response.delete_cookie(self._cookie, path=self._path)
        return response

    def _opens(self, request: Request, key: str, *, tell: bool = True) -> bool:
        address = request.client.host if request.client else ""
        assert self.door is not None
        if self.door.held(address):
            raise Problem(429, "Too many attempts", "There were too many wrong keys.", "Wait a minute, then try again.")
        if self.door.opens(key, address):
            return True
        if tell:
            raise Problem(401, "Wrong key", "That is not the API key of this server")
        return False

    def _form(self, request: Request, wanted: str, wrong: str = "") -> Response:
        assert self.door is not None
        cookie = secrets.token_urlsafe(24)
        view = Login(wanted, self.door.token(cookie), wrong)
        response = self._front.show(Page("login.html", "Sign in", "", view, 403 if wrong else 200), None)
        self._set(request, response, self._cookie + "_door", cookie, _DOOR_SECONDS)
        return response

    def _entered(self, request: Request, wanted: str, cookie: str | None) -> Response:
        # A page rather than a redirect: a browser that came from elsewhere would send no strict cookie along.
        response = self._front.show(Page("enter.html", "Welcome", "", Entering(wanted)), None)
        if cookie is not None:
            self._set(request, response, self._cookie, cookie, int(SESSION_SECONDS))
        return response

    def _set(self, request: Request, response: Response, name: str, value: str, seconds: int) -> None:
        # Behind a proxy that ends TLS the scheme is not ours to see, but the browser says what it speaks.
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
        response.set_cookie(
            name, value, max_age=seconds, path=self._path, secure=secure, httponly=True, samesite="strict"
        )

    @property
    def _path(self) -> str:
        return self._front.renderer.prefix or "/"

"""The front: how pages and problems leave the house, as HTML or as JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from treadle.console.problem import Problem
from treadle.console.rendering import Renderer, as_json
from treadle.console.sessions import Session
from treadle.console.visit import Page, local


class Front:
    """Shows pages of one project."""

    def __init__(self, renderer: Renderer, project: str) -> None:
        self.renderer = renderer
        self._project = project

    def show(self, page: Page, session: Session | None, here: str = "/") -> Response:
        """A page as HTML; ``here`` is its own address within the console."""
        text = self.renderer.html(
            page.template,
            view=page.view,
            title=page.title,
            area=page.area,
            project=self._project,
            person=session.person.name if session else None,
            csrf=session.csrf if session else "",
            appearance=session.appearance if session else "auto",
            notice=session.take_notice() if session else "",
            here=here,
        )
        return Response(text.encode("utf-8", "replace"), page.status, media_type="text/html")

    def trouble(self, request: Request, problem: Problem, session: Session | None = None) -> Response:
        """A problem as a page, or as JSON where that was asked for."""
        if wants_json(request):
            response = json_response(problem.public(), problem.status)
        else:
            page = Page("problem.html", problem.title, "", problem, problem.status)
            response = self.show(page, session, self.here(request))
        if problem.status in (429, 503):
            response.headers["Retry-After"] = "5"
        return response

    def here(self, request: Request) -> str:
        """The address of a page within the console, without what is said of its format."""
        if request.method == "POST":
            return "/"
        query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "format"])
        path = request.url.path.removeprefix(self.renderer.prefix) or "/"
        return local(path + (f"?{query}" if query else ""))


def wants_json(request: Request) -> bool:
    """Whether JSON was asked for, in the address or by the ``Accept`` header."""
    asked = request.query_params.get("format")
    accept = request.headers.get("accept", "")
    return asked == "json" or (asked is None and "application/json" in accept and "text/html" not in accept)


def json_response(view: Any, code: int = 200) -> Response:
    """A view as JSON."""
    return Response(as_json(view), code, media_type="application/json")

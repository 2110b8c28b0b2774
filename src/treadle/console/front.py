"""The front: how pages and problems leave the house, as HTML or as JSON."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from treadle.console.problem import Problem
from treadle.console.rendering import Renderer, as_json
from treadle.console.sessions import Session
from treadle.console.visit import Page


class Front:
    """Shows pages of one project."""

    def __init__(self, renderer: Renderer, project: str) -> None:
        self.renderer = renderer
        self._project = project

    def show(self, page: Page, session: Session | None) -> Response:
        """A page as HTML."""
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
        )
        return Response(text.encode("utf-8", "replace"), page.status, media_type="text/html")

    def trouble(self, request: Request, problem: Problem, session: Session | None = None) -> Response:
        """A problem as a page, or as JSON where that was asked for."""
        if wants_json(request):
            response = json_response(problem.public(), problem.status)
        else:
            response = self.show(Page("problem.html", problem.title, "", problem, problem.status), session)
        if problem.status in (429, 503):
            response.headers["Retry-After"] = "5"
        return response


def wants_json(request: Request) -> bool:
    """Whether JSON was asked for, in the address or by the ``Accept`` header."""
    asked = request.query_params.get("format")
    accept = request.headers.get("accept", "")
    return asked == "json" or (asked is None and "application/json" in accept and "text/html" not in accept)


def json_response(view: Any, code: int = 200) -> Response:
    """A view as JSON."""
    return Response(as_json(view), code, media_type="application/json")

"""Another application under a path of the same server."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from toy_server import Served


async def page(request: Request) -> PlainTextResponse:
    if request.headers.get("cookie") != "pass=yes":
        return PlainTextResponse("who are you?", 401)
    return PlainTextResponse(f"{request.url.path} of {request.scope['root_path']}")


async def fails(request: Request) -> PlainTextResponse:
    raise RuntimeError("zebra")


OTHER = Starlette(routes=[Route("/", page), Route("/a/b", page, methods=["GET", "POST"]), Route("/fails", fails)])


def test_it_is_reached_under_its_path_alone(start: Callable[..., Served]) -> None:
    served = start(mounts={"/console": OTHER})
    mine = {"cookie": "pass=yes"}
    assert served.http.get("/console/", headers=mine).text == "/console/ of /console"
    assert served.http.post("/console/a/b?x=1", headers=mine).text == "/console/a/b of /console"
    bare = served.http.get("/console?x=1", headers=mine)
    assert (bare.status_code, bare.headers["location"]) == (307, "/console/?x=1")
    assert served.http.get("/a/b", headers=mine).status_code == 404
    assert served.http.get("/consoles", headers=mine).status_code == 404
    assert served.http.get("/console/nothing", headers=mine).text == "Not Found"
    assert served.chat().status_code == 200


def test_its_own_rules_hold_there_and_the_servers_elsewhere(start: Callable[..., Served]) -> None:
    served = start(mounts={"/console": OTHER}, key="secret")
    without = {"authorization": ""}
    assert served.http.get("/console/", headers=without).status_code == 401
    assert served.http.get("/console/", headers=without | {"cookie": "pass=yes"}).status_code == 200
    assert served.http.get("/console/", headers={"origin": "https://elsewhere.example"}).text == "who are you?"
    assert served.http.get("/v1/models", headers=without | {"cookie": "pass=yes"}).status_code == 401


def test_its_failure_is_its_own(start: Callable[..., Served]) -> None:
    served = start(mounts={"/console": OTHER})
    answer = served.http.get("/console/fails")
    assert answer.status_code == 500
    assert "zebra" not in answer.text
    assert served.chat().status_code == 200

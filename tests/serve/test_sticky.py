"""Who stays with one release while a canary is tried: the user, the key, or whoever sends the same header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_keys import Book
from toy_table import ONE, TWO, Tabled, tabled

from treadle.core.config import load
from treadle.core.errors import UserError
from treadle.stages.deploy import DeploySettings

BOTH = {ONE, TWO}


def drawn(server: Tabled, path: str = "/v1/chat/completions", **sent: str | None) -> str:
    """The release that answers. A name with a hyphen in it is sent as a header."""
    names = {name.replace("_", "-"): value for name, value in sent.items() if value is not None}
    headers = {name: value for name, value in names.items() if "-" in name or name == "authorization"}
    more = {name: value for name, value in names.items() if name not in headers}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "one"}], **more}
    if path == "/predict":
        body = {"instances": ["one"], "parameters": more}
    elif path == "/v1/completions":
        body = {"prompt": "one", **more}
    answer = server.http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["treadle-release"]


def test_a_header_s_value_stays_with_its_release_whoever_the_user_is() -> None:
    with tabled(canary=0.5, sticky="x-session-id") as server:
        sides = {
            session: {drawn(server, x_session_id=session, user=f"user {number}") for number in range(4)}
            for session in (f"session {number}" for number in range(30))
        }
        assert all(len(side) == 1 for side in sides.values())
        assert set.union(*sides.values()) == BOTH
        for session, (side,) in sides.items():  # however the request comes, and whatever the letters of the name
            assert drawn(server, "/predict", **{"X-Session-Id": session}) == side
            assert drawn(server, "/v1/completions", x_session_id=session) == side


def test_who_does_not_send_the_header_is_drawn_by_the_user_and_else_anew() -> None:
    with tabled(canary=0.5, sticky="x-session-id") as server:
        for empty in (None, ""):
            sides = [{drawn(server, x_session_id=empty, user=f"user {n}") for _ in range(4)} for n in range(30)]
            assert all(len(side) == 1 for side in sides)
            assert set.union(*sides) == BOTH
        assert {drawn(server) for _ in range(100)} == BOTH


def test_by_default_the_user_decides_and_no_header() -> None:
    with tabled(canary=0.5) as server:
        sides = [{drawn(server, user=f"user {n}", x_session_id=str(k)) for k in range(4)} for n in range(30)]
        assert all(len(side) == 1 for side in sides)
        assert set.union(*sides) == BOTH


def test_a_key_stays_with_its_release_so_that_one_alone_is_not_split(tmp_path: Path) -> None:
    book = Book(tmp_path / "store")
    secrets = [book.create(f"caller-{number}")[1] for number in range(40)]
    with tabled(canary=0.5, sticky="key", keys=book.use()) as server:
        sides = [
            {drawn(server, authorization=f"Bearer {secret}", user=f"user {number}") for number in range(5)}
            for secret in secrets
        ]
        assert all(len(side) == 1 for side in sides)
        assert set.union(*sides) == BOTH
    book.close()


def test_without_keys_it_is_drawn_by_the_user() -> None:
    with tabled(canary=0.5, sticky="key") as server:
        sides = [{drawn(server, user=f"user {number}") for _ in range(4)} for number in range(30)]
        assert all(len(side) == 1 for side in sides)
        assert set.union(*sides) == BOTH


@pytest.mark.parametrize("value", ["user", "key", "x-session-id", "X-Session-Id"])
def test_the_file_says_what_sticks(tmp_path: Path, value: str) -> None:
    (tmp_path / "deploy.yaml").write_text(f"sticky: {value}\n")
    assert load(tmp_path / "deploy.yaml", DeploySettings).sticky == value.lower()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("keys", "did you mean 'key'?"),
        ("users", "did you mean 'user'?"),
        ("User", "did you mean 'user'?"),
        ("session", "known: key, user"),
        ("x-session id", "known: key, user"),
        ("x-", "known: key, user"),
        ("''", "known: key, user"),
    ],
)
def test_a_word_that_is_none_is_refused_and_the_nearest_named(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "deploy.yaml").write_text(f"port: 80\nsticky: {value}\n")
    with pytest.raises(UserError) as refused:
        load(tmp_path / "deploy.yaml", DeploySettings)
    assert str(refused.value).startswith("deploy.yaml:2: sticky: expected user, key, or a header's name")
    assert str(refused.value).endswith(said)

"""Ways to get round key, budget, guardrail or record, each tried for real against one server: none may succeed.

A way gives what it got by it, or nothing. To add one, write a function; its first line says what it tries.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from toy_keys import CLIENT, Book
from toy_server import Served, serve_toy

from treadle.record.api_key import Limit, digest_of
from treadle.serve.guardrail import Guardrails, Named
from treadle.serve.guards import BlockList, PersonalData
from treadle.text.lookalikes import plain

MAIL = "jane.doe@example.org"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "one two three"}]}
CHAT = "/v1/chat/completions"
RAILS = Guardrails(
    inward=(Named("block_list", BlockList(words=["bomb"])),),
    outward=(Named("personal_data", PersonalData()), Named("block_list", BlockList(words=["zebra"]))),
)
MODEL = "docs-assistant"
NAMED = "docs-assistant@v1"


def asked_elsewhere(text: str) -> dict[str, Any]:
    """What asks the same of every other path that a release of this kind answers."""
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [text]}
    return {
        "/v1/completions": {"prompt": text},
        "/v1/embeddings": {"input": ["a", text]},
        "/v1/score": {"text_1": "a", "text_2": [text]},
        "/v1/rerank": {"query": text, "documents": ["a"]},
        "/invocations": {"inputs": text},
        "/predict": {"instances": [text]},
        f"/v1/models/{MODEL}:predict": {"instances": ["a", text]},
        f"/v1/models/{MODEL}/versions/1:predict": {"inputs": [text]},
        f"/v2/models/{MODEL}/infer": {"inputs": [tensor]},
    }


OTHER = Starlette(routes=[Route("/", lambda _: PlainTextResponse("who are you?", 401))])


@dataclass
class World:
    """The server, and keys of all sorts."""

    served: Served
    book: Book
    good: str
    made: dict[str, str] = field(default_factory=dict)

    def key(self, *limits: Limit, **options: Any) -> str:
        """Another key, good from now on."""
        name = f"key-{len(self.made)}"
        _, self.made[name] = self.book.create(name, *limits, **options)
        for _ in range(500):
            if self.post(self.made[name], {}, "/v1/feedback").status_code != 401:  # which costs nothing
                return self.made[name]
            time.sleep(0.01)
        raise AssertionError("the key is not known")

    def id_of(self, secret: str) -> str:
        return next(key.id for key in self.book.keys.all() if key.digest == digest_of(secret))

    def post(self, key: str | None, body: Any = HELLO, path: str = CHAT, **headers: str) -> httpx.Response:
        headers |= {"authorization": f"Bearer {key}"} if key else {}
        return CLIENT.post(self.served.url + path, json=body, headers=headers)

    def raw(self, data: bytes) -> bytes:
        """What comes for these bytes until the server closes, or has said nothing for a while."""
        host, port = self.served.url.removeprefix("http://").split(":")
        got = b""
        with socket.create_connection((host, int(port)), timeout=0.4) as sock:
            sock.sendall(data)
            try:
                while piece := sock.recv(1 << 16):
                    got += piece
            except (TimeoutError, ConnectionError):
                pass
        return got

    def spent(self, secret: str) -> int:
        """Tokens of a key by the record's own rows."""
        rows = [row for row in self.served.rows if row["key"] == self.id_of(secret)]
        return sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    book = Book(Path(tmp_path_factory.mktemp("ways"), "store"))
    _, good = book.create("good")
    try:
        with serve_toy(keys=book.use(), guardrails=RAILS, record="full", mounts={"/console": OTHER}) as served:
            yield World(served, book, good)
    finally:
        book.close()


WAYS: list[Callable[[World], object]] = []


def way(function: Callable[[World], object]) -> Callable[[World], object]:
    WAYS.append(function)
    return function


@pytest.mark.parametrize("tried", WAYS, ids=lambda each: each.__name__)
def test_no_way_leads_round(world: World, tried: Callable[[World], object]) -> None:
    assert world.post(world.good).status_code == 200
    assert not tried(world)


def test_there_are_at_least_thirty() -> None:
    assert len(WAYS) >= 30


def post_bytes(path: str, *headers: str, body: bytes = json.dumps(HELLO).encode(), version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", "content-type: application/json", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answered(response: httpx.Response) -> bool:
    return response.status_code < 300


# -- the key


@way
def no_key_at_all(world: World) -> object:
    """On every path that says or does anything."""
    paths = ["/v1/models", "/v1/models/docs-assistant", "/metrics"]
    posts = [CHAT, "/v1/classify", "/v1/tag", "/v1/feedback", *asked_elsewhere("a")]
    found = [path for path in paths if CLIENT.get(world.served.url + path).status_code != 401]
    return found + [path for path in posts if world.post(None, path=path).status_code != 401]


@way
def the_key_in_the_address(world: World) -> object:
    """Where logs and proxies would keep it."""
    names = ("key", "api_key", "api-key", "access_token", "authorization", "token")
    return [name for name in names if answered(world.post(None, path=f"{CHAT}?{name}={world.good}"))]


@way
def the_key_in_other_headers(world: World) -> object:
    """Those of other products, and a cookie."""
    names = ("api-key", "x-api-key", "x-goog-api-key", "proxy-authorization", "cookie", "x-authorization")
    return [name for name in names if answered(world.post(None, **{name: f"Bearer {world.good}"}))]


@way
def other_forms_of_the_header(world: World) -> object:
    """Schemes that are not Bearer, lists, and none."""
    basic = base64.b64encode(f"user:{world.good}".encode()).decode()
    forms = [world.good, f"Basic {basic}", f"Token {world.good}", f"Bearer wrong, Bearer {world.good}", "Bearer",
             f"Bearer {world.good}, Bearer wrong", f"Bearer: {world.good}", "Bearer null", "Bearer *"]  # fmt: skip
    return [form for form in forms if answered(world.post(None, authorization=form))]


@way
def two_authorization_headers(world: World) -> object:
    """A proxy may look at one of them, and the server at the other."""
    good, bad = f"authorization: Bearer {world.good}", "Authorization: Bearer tk-wrong"
    orders = [(good, bad), (bad, good), (good, good.upper().replace(world.good.upper(), world.good))]
    return [order for order in orders if b" 200 OK" in world.raw(post_bytes(CHAT, *order, "connection: close"))]


@way
def keys_that_are_nearly_right(world: World) -> object:
    """Cut, longer, of another case, with what nobody sees; the hash and the id, which others may know."""
    good = world.good
    near = [good[:-1], good + "A", good.swapcase(), good + "%00", good[3:], "tk-", good.replace("tk-", "sk-"),
            digest_of(good), "tk-" + digest_of(good), world.id_of(good), "default", "good"]  # fmt: skip
    return [key for key in near if answered(world.post(key))]


@way
def other_spellings_of_the_path(world: World) -> object:
    """What a router or a proxy may read as the same."""
    paths = ["//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/V1/Chat/Completions",
             "/%76%31/chat/completions", "/v1/chat%2fcompletions", "/./v1/chat/completions",
             "/x/../v1/chat/completions",
             "/v1/chat/completions;x=1", "/v1/chat/completions%00", "/v1/chat/completions?", "/v1/chat/completions#x",
             "/health/live/../../v1/chat/completions", "/health/live%2f..%2f..%2fv1/chat/completions", "\\v1\\models",
             "/openapi.json/../v1/chat/completions", "*"]  # fmt: skip
    return [path for path in paths if b" 200 OK" in world.raw(post_bytes(path, "connection: close"))]


@way
def a_whole_address_as_the_target(world: World) -> object:
    """As proxies are asked, with a path that is open in front."""
    targets = [f"http://localhost{CHAT}", f"http://x/health/live{CHAT}", f"//localhost{CHAT}"]
    return [target for target in targets if b" 200 OK" in world.raw(post_bytes(target, "connection: close"))]


@way
def out_of_what_is_mounted(world: World) -> object:
    """The console asks for its own key; nothing of ours may be reached through it."""
    paths = [
        f"/console/..{CHAT}",
        f"/console/%2e%2e{CHAT}",
        f"/console/%2e%2e%2f{CHAT}",
        f"/console{CHAT}",
        f"/console/{CHAT}",
    ]
    found = [path for path in paths if b" 200 OK" in world.raw(post_bytes(path, "connection: close"))]
    return found or CLIENT.get(world.served.url + "/console/").status_code != 401


@way
def other_methods(world: World) -> object:
    """HEAD and OPTIONS for GET, and headers that say another method."""
    url = world.served.url
    tried = [CLIENT.request(method, url + "/v1/models") for method in ("HEAD", "OPTIONS", "PUT", "TRACE", "PATCH")]
    said = {"x-http-method-override": "POST", "x-method-override": "POST", "x-http-method": "POST"}
    tried += [CLIENT.get(url + CHAT, headers=said), CLIENT.get(url + "/health/live", headers=said)]
    return [answer.text for answer in tried if answered(answer) and answer.text != '{"status":"ok"}']


@way
def headers_for_proxies(world: World) -> object:
    """Those that name another path, another client or another host."""
    headers = {"x-original-url": "/health/live", "x-rewrite-url": "/health/live", "x-forwarded-for": "127.0.0.1",
               "x-real-ip": "127.0.0.1", "x-forwarded-host": "localhost", "forwarded": "for=127.0.0.1",
               "x-forwarded-user": "admin", "origin": "http://localhost", "host": "localhost"}  # fmt: skip
    return answered(world.post(None, **headers)) or [
        h for h, v in headers.items() if answered(world.post(None, **{h: v}))
    ]


@way
def an_upgrade(world: World) -> object:
    """To a protocol that is not looked at."""
    ups = [("upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"),
           ("upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")]  # fmt: skip
    got = [world.raw(post_bytes(CHAT, "connection: upgrade", *headers)) for headers in ups]
    return [each for each in got if b" 200 OK" in each or b" 101 " in each]


@way
def behind_somebody_elses_key(world: World) -> object:
    """Pipelined on a connection where the first request had one."""
    first = post_bytes(CHAT, f"authorization: Bearer {world.good}")
    got = world.raw(first + post_bytes(CHAT, "connection: close"))
    return got.count(b" 200 OK") != 1 or b" 401 " not in got


@way
def smuggled_in_a_body(world: World) -> object:
    """With two lengths, so that a proxy and the server see different ends."""
    inner = post_bytes("/v1/completions", body=b'{"prompt": "smuggled"}')
    key = f"authorization: Bearer {world.good}"
    data = post_bytes(
        CHAT, key, f"content-length: {len(inner) + 5}", "transfer-encoding: chunked", body=b"0\r\n\r\n" + inner
    )
    world.raw(data)
    world.raw(post_bytes(CHAT, key, "transfer-encoding: chunked", "content-length: 3", body=b"0\r\n\r\n" + inner))
    return [row for row in world.served.rows if row["endpoint"] == "completions" and "smuggled" in str(row["messages"])]


@way
def a_revoked_key(world: World) -> object:
    """Also one whose connection stayed open, and in a stream."""
    key = world.key()
    with httpx.Client(base_url=world.served.url, headers={"authorization": f"Bearer {key}"}) as client:
        assert client.post(CHAT, json=HELLO).status_code == 200
        world.served.engine.pace = 0.02
        try:
            body = {"messages": [{"role": "user", "content": "w " * 150}], "stream": True}
            with client.stream("POST", CHAT, json=body) as streamed:
                world.book.keys.revoke(world.id_of(key), actor="k3:me")
                whole = "".join(streamed.iter_text())
        finally:
            world.served.engine.pace = 0.0
        return "[DONE]" in whole or answered(client.post(CHAT, json=HELLO))


@way
def an_expired_key(world: World) -> object:
    """By the database's clock, whatever the client's headers say."""
    key = world.key(seconds=1.0)
    time.sleep(1.0)
    return answered(world.post(key)) or answered(world.post(key, date="Thu, 01 Jan 1970 00:00:00 GMT"))


@way
def a_key_for_something_else(world: World) -> object:
    """Every endpoint beside the one it is for."""
    key = world.key(scope=("embeddings",))
    posts = asked_elsewhere("a") | {
        CHAT: HELLO,
        "/v1/classify": {"input": "a"},
        "/v1/tag": {"input": "a"},
        "/v1/feedback": {"interaction": world.served.rows[0]["id"], "thumbs": "up"},
    }
    assert answered(world.post(key, posts.pop("/v1/embeddings"), "/v1/embeddings"))
    found = [path for path, body in posts.items() if answered(world.post(key, body, path))]
    gets = [
        CLIENT.get(world.served.url + path, headers={"authorization": f"Bearer {key}"})
        for path in ("/v1/models", "/metrics")
    ]
    return found + [answer.text for answer in gets if answered(answer)]


@way
def metrics_of_everybody(world: World) -> object:
    """With a key that is for all of the models' work."""
    return answered(CLIENT.get(world.served.url + "/metrics", headers={"authorization": f"Bearer {world.good}"}))


@way
def a_model_the_key_is_not_for(world: World) -> object:
    """By every name of it, by none, and by two."""
    key = world.key(models=("another@v1",))
    names = ["docs-assistant", "docs-assistant@v1", "docs-assistant@champion", None, "", "another@v1", "another",
             world.served.gateway.serving.release.digest]  # fmt: skip
    found = [name for name in names if answered(world.post(key, HELLO | {"model": name}))]
    twice = json.dumps(HELLO)[:-1] + ', "model": "another@v1", "model": "docs-assistant"}'
    got = world.raw(post_bytes(CHAT, f"authorization: Bearer {key}", "connection: close", body=twice.encode()))
    return found or b" 200 OK" in got


# -- the budget


def until_refused(world: World, key: str, body: dict[str, Any], path: str = CHAT) -> int:
    """Tokens beyond a budget of 100 that a key got, less those of one request."""
    ends = time.monotonic() + 30
    while (answer := world.post(key, body, path)).headers.get("x-should-retry") != "false":
        assert time.monotonic() < ends, f"the budget never ended: {answer.text}"
        if answer.status_code == 429:  # what is left is reserved by a request that a client just left
            time.sleep(0.02)
    assert answer.status_code == 429, answer.text
    last = [row for row in world.served.rows if row["key"] == world.id_of(key)][-1]["tokens"]
    return max(0, world.spent(key) - 100 - last["prompt"] - last["completion"] + 1)


@way
def leaving_before_the_end(world: World) -> object:
    """A stream that is broken off is paid as far as it came."""
    key = world.key(Limit("tokens", 100))
    body = {"messages": [{"role": "user", "content": "w " * 30}], "stream": True}
    for _ in range(4):
        with CLIENT.stream(
            "POST", world.served.url + CHAT, json=body, headers={"authorization": f"Bearer {key}"}
        ) as got:
            next(got.iter_raw(), None)
    return until_refused(world, key, body)


@way
def many_answers_to_one_prompt(world: World) -> object:
    """``n: 8`` is paid eight times."""
    return until_refused(world, world.key(Limit("tokens", 100)), HELLO | {"n": 8, "temperature": 1})


@way
def no_say_on_the_length(world: World) -> object:
    """Without ``max_tokens`` the release's own counts as reserved."""
    return until_refused(world, world.key(Limit("tokens", 100)), {"messages": [{"role": "user", "content": "w " * 60}]})


@way
def lengths_that_are_none(world: World) -> object:
    """Negative, nothing, fractions, texts, and more than there is room for."""
    key = world.key(Limit("tokens", 100))
    lengths = [-1, 0, -(2**63), 2**70, 1e308, 0.5, "10", True, 10**6, [1]]
    found = [each for each in lengths if answered(world.post(key, HELLO | {"max_tokens": each}))]
    twice = json.dumps(HELLO)[:-1] + ', "max_tokens": 200, "max_tokens": -200}'
    got = world.raw(post_bytes(CHAT, f"authorization: Bearer {key}", "connection: close", body=twice.encode()))
    return found or b" 200 OK" in got or world.spent(key)


@way
def somebody_elses_name(world: World) -> object:
    """The budget is the key's, whoever the request says it is from."""
    key = world.key(Limit("tokens", 100))
    for number in range(8):
        world.post(
            key,
            HELLO | {"user": f"user-{number}", "safety_identifier": f"user-{number}"},
            **{"openai-organization": str(number)},
        )
    return until_refused(world, key, HELLO | {"user": "another"})


@way
def nothing_kept(world: World) -> object:
    """``store: false`` keeps no text, and costs as much."""
    return until_refused(world, world.key(Limit("tokens", 100)), HELLO | {"store": False})


@way
def the_same_request_id(world: World) -> object:
    """A request is not free because one of its name was paid."""
    key = world.key(Limit("tokens", 100))
    for _ in range(20):
        world.post(key, HELLO, **{"x-request-id": "same", "idempotency-key": "same"})
    return until_refused(world, key, HELLO)


@way
def by_other_endpoints(world: World) -> object:
    """They share one budget, also where a text's tokens are not known."""
    key = world.key(Limit("tokens", 100))
    until_refused(world, key, HELLO)
    others = asked_elsewhere("a")
    assert all(answered(world.post(world.good, body, path)) for path, body in others.items())
    return [path for path, body in others.items() if answered(world.post(key, body, path))]


@way
def by_a_contract_alone(world: World) -> object:
    """A platform's own shape is paid as much: two texts in it are two answers."""
    body = {"instances": ["one two three", "four"]}
    return until_refused(world, world.key(Limit("tokens", 100)), body, f"/v1/models/{MODEL}:predict")


@way
def texts_of_no_length(world: World) -> object:
    """Each costs one token at least."""
    key = world.key(Limit("tokens", 100))
    body = {"input": ["\u200b"] * 64}
    return sum(answered(world.post(key, body, "/v1/embeddings")) for _ in range(6)) > 2


@way
def all_at_once(world: World) -> object:
    """Requests that arrive together are let in one by one."""
    key = world.key(Limit("requests", 3, "minute"), Limit("tokens", 500))
    with ThreadPoolExecutor(12) as pool:
        good = sum(answered(each) for each in pool.map(lambda _: world.post(key), range(24)))
    return good > 6 or good < 3  # six where a minute ended meanwhile


@way
def trying_for_nothing(world: World) -> object:
    """What is refused counts: by a guardrail, for a body that is none, for a name of a model."""
    key = world.key(Limit("requests", 6))
    blocked = {"messages": [{"role": "user", "content": "a bomb"}]}
    tried = [world.post(key, body) for body in (blocked, {}, HELLO | {"model": "another"}) * 4]
    return [answer.status_code for answer in tried] != [400, 400, 404] * 2 + [429] * 6


# -- guardrails


def reached_the_model(world: World) -> list[str]:
    """Prompts with what is blocked, in whatever form."""
    decode = world.served.engine.tokenizer.decode
    prompts = [plain(decode(request.prompt_ids))[0] for request in world.served.engine.requests]
    return [prompt for prompt in prompts if re.search(r"\bbomb\b", prompt)]


def said(world: World, *messages: dict[str, Any], **more: Any) -> object:
    """What of it reached the model; it must not have been answered either."""
    answer = world.post(world.good, {"messages": list(messages)} | more)
    if answered(answer):
        return answer.text
    assert answer.status_code == 400, answer.text
    return reached_the_model(world)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@way
def letters_that_look_alike(world: World) -> object:
    """Other scripts, styles, accents, case."""
    words = ["b\u043emb", "BOMB", "\uff42omb", "b\u00f6mb", "\u24d1omb", "\U0001d41bomb", "\u0432omb"]
    return [word for word in words if said(world, user(f"a {word} please"))]


@way
def letters_that_nobody_sees(world: World) -> object:
    """Between those of a word."""
    unseen = ["\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u3164", "\U000e0062", "\u202e", "\u0301" * 40]
    return [word for word in unseen if said(world, user(f"bo{word}mb"))]


@way
def another_part_of_the_message(world: World) -> object:
    """Parts of the content, escapes of JSON, keys that come twice."""
    if found := said(world, user([{"type": "text", "text": "a"}, {"type": "text", "text": "bomb"}])):
        return found
    bodies = [b'{"messages": [{"role": "user", "content": "\\u0062omb"}]}',
              b'{"messages": [{"role": "user", "content": "a"}], "messages": [{"role": "user", "content": "bomb"}]}',
              b'{"messages": [{"role": "user", "content": "a", "content": "bomb"}]}']  # fmt: skip
    head = f"authorization: Bearer {world.good}"
    got = [world.raw(post_bytes(CHAT, head, "connection: close", body=body)) for body in bodies]
    return [each for each in got if b" 200 OK" in each] or reached_the_model(world)


@way
def another_role(world: World) -> object:
    """The system's, the developer's, the assistant's."""
    tried = [({"role": role, "content": "bomb"}, user("a")) for role in ("system", "developer", "assistant")]
    return [messages for messages in tried if said(world, *messages)]


@way
def in_what_tools_say(world: World) -> object:
    """Their names and descriptions, arguments of calls and answers."""
    tool = {"type": "function", "function": {"name": "f", "description": "makes a bomb"}}
    deep = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"bomb": {"type": "string"}}}}}
    found = [each for each in (tool, deep) if said(world, user("a"), tools=[each])]
    for arguments, result in (('{"a": ["\\u0062omb"]}', "x"), ('{"bomb": 1}', "x"), ("{}", "a bomb")):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        turns = (
            user("a"),
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": result},
        )
        found += [call] if said(world, *turns) else []
    return found


@way
def in_the_context(world: World) -> object:
    """Its text and its title."""
    pieces = ({"text": "a bomb"}, {"text": "a", "title": "Bomb"})
    return [piece for piece in pieces if said(world, user("a"), context=[piece])]


@way
def by_another_endpoint(world: World) -> object:
    """Whatever a release is asked by."""
    found = [path for path, body in asked_elsewhere("a bomb").items() if answered(world.post(world.good, body, path))]
    return found or reached_the_model(world)


@way
def in_another_encoding(world: World) -> object:
    """Compressed, in UTF-16, in UTF-7, in pieces."""
    body = json.dumps({"messages": [user("a bomb")]})
    head = f"authorization: Bearer {world.good}"
    small = b"".join(b"1\r\n" + body.encode()[i : i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n"
    tried = [post_bytes(CHAT, head, "connection: close", "content-encoding: gzip", body=gzip.compress(body.encode())),
             post_bytes(CHAT, head, "connection: close", "accept-charset: utf-16", body=body.encode("utf-16")),
             post_bytes(CHAT, head, "connection: close", body=body.replace("b", "+AGI-").encode()),
             post_bytes(CHAT, head, "connection: close", "transfer-encoding: chunked", body=small)]  # fmt: skip
    got = [world.raw(data) for data in tried]
    blocked = [each for each in got if b" 200 OK" in each and b"omb" in each and b"+AGI" not in each]
    return blocked or reached_the_model(world)


@way
def an_answer_in_pieces(world: World) -> object:
    """A stream, in which an address or a word comes in several."""
    found = []
    texts = (f"write to {MAIL} now", "one zebra", "ze\u200bbra " + "w " * 40, f"{MAIL} " * 20)
    try:
        for letters in (0, 1, 3):  # a chunk; 0: whole words
            world.served.engine.cut = letters
            for text in texts:
                found += [said for more in SHAPES for said in leaked(world, text, more)]
    finally:
        world.served.engine.cut = 0
    return found


SHAPES: tuple[dict[str, Any], ...] = ({}, {"n": 3}, {"stop": ["@"]}, {"max_tokens": 3})


def leaked(world: World, text: str, more: dict[str, Any]) -> list[str]:
    """Choices of a stream in which what must not go out stands."""
    lines = world.post(world.good, {"messages": [user(text)], "stream": True} | more).text.splitlines()
    told: dict[int, str] = {}
    for event in (json.loads(line[6:]) for line in lines if line.startswith("data: {")):
        for choice in event.get("choices", []):
            told[choice["index"]] = told.get(choice["index"], "") + (choice["delta"].get("content") or "")
    return [out for out in told.values() if "jane.doe@" in out or "zebra" in plain(out)[0]]


@way
def tokens_beside_the_text(world: World) -> object:
    """Log-probabilities, which come with the tokens' own texts."""
    bodies = [
        {"messages": [user(MAIL)], "logprobs": True},
        {"messages": [user(MAIL)], "logprobs": True, "stream": True},
    ]
    return [body for body in bodies if MAIL in world.post(world.good, body).text] or (
        MAIL in world.post(world.good, {"prompt": MAIL, "logprobs": 0}, "/v1/completions").text
    )


@way
def an_answer_as_a_call(world: World) -> object:
    """In the arguments of a call, written as JSON writes it."""
    hidden = MAIL.replace("@", "\\u0040")
    call = f'<tool_call>{{"name":"f","arguments":{{"to":["{hidden}"],"{hidden}":1}}}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "f"}}]
    bodies = [{"messages": [user(call)], "tools": tools, "stream": stream} for stream in (False, True)]
    return [body for body in bodies if MAIL in world.post(world.good, body).text]


# -- the record


@way
def unrecorded(world: World) -> object:
    """What was asked, refused, left early or not to be kept leaves its row, with the key."""
    key = world.key()
    world.post(key, HELLO | {"store": False, "metadata": {"origin": "import"}}, **{"x-request-id": "a\tb"})
    world.post(key, {"messages": [user("bomb")]})
    with CLIENT.stream(
        "POST", world.served.url + CHAT, json=HELLO | {"stream": True}, headers={"authorization": f"Bearer {key}"}
    ):
        pass
    for _ in range(300):
        rows = [row for row in world.served.rows if row["key"] == world.id_of(key)]
        if len(rows) == 3:
            break
        time.sleep(0.01)
    kept = [(row["origin"], row["store"], row["messages"] is not None) for row in rows]
    return kept != [("traffic", False, False), ("traffic", True, True), ("traffic", True, True)]


@way
def unrecorded_elsewhere(world: World) -> object:
    """Each answer by whatever path has its row, with the key and the release: several texts and choices too."""
    key, found = world.key(), []
    for path, body in (asked_elsewhere("a") | {CHAT: HELLO | {"n": 3, "temperature": 1}}).items():
        before = len(world.served.rows)
        answer = world.post(key, body, path)
        assert answered(answer), answer.text
        rows = world.served.rows[before:]
        named = answer.headers["treadle-interaction"].split(",")
        same = {(row["key"], row["release"]) for row in rows} == {(world.id_of(key), answer.headers["treadle-release"])}
        found += [] if same and [row["id"] for row in rows] == named else [path]
    return found

"""HTTP to servers elsewhere: what they may send, and which of their connections are used again."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from treadle.lm import upstream_client
from treadle.lm.breaker import Breaker
from treadle.lm.upstream_address import Address, UpstreamError
from treadle.lm.upstream_client import JSON, UpstreamClient
from treadle.lm.upstream_settings import UpstreamSettings
from treadle.lm.upstream_wire import GarbledError

PATH = "/chat/completions"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
Handler = Callable[["Wire"], Awaitable[None]]


class Wire:
    """The server's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes:
        """The next one's head; its body is read."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self.reader.readexactly(length)
        return head

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Each by itself."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause)


class Server:
    """Handles every connection as it is told; ``opened`` counts them."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.opened = 0
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            await self._handler(Wire(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(handler)
    listener = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def asking(url: str, **settings: Any) -> AsyncIterator[Callable[[], Coroutine[Any, Any, bytes]]]:
    """What asks once and gives the whole body."""
    told = UpstreamSettings.model_validate({"urls": [url], "model": "m", "connect": 5.0, **settings})
    client, address = UpstreamClient(told), Address(url, Breaker(5, 30.0, 10.0))

    async def ask() -> bytes:
        deadline = asyncio.get_running_loop().time() + told.timeout
        answer = await client.answer(address, PATH, b"{}", deadline, kind=JSON)
        try:
            data = b""
            while piece := await answer.read():
                data += piece
            return data
        finally:
            answer.close()

    try:
        yield ask
    finally:
        await client.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def answering(wire: Wire) -> None:
    while True:
        await wire.request()
        await wire.send(WHOLE)


def test_one_connection_takes_one_request_after_the_other_and_several_at_once() -> None:
    async def work() -> None:
        async with listening(answering) as server, asking(server.url) as ask:
            for _ in range(5):
                assert await ask() == b"{}"
            assert server.opened == 1
            assert await asyncio.gather(*(ask() for _ in range(4))) == [b"{}"] * 4
            assert server.opened == 4

    run(work())


def test_the_request_says_where_it_goes_and_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    async def handler(wire: Wire) -> None:
        heads.append(await wire.request())
        await wire.send(WHOLE)

    async def work() -> None:
        async with (
            listening(handler) as server,
            asking(f"{server.url}/äb", api_key="${env:KEY}") as ask,
        ):
            await ask()
            host = server.url.removeprefix("http://").removesuffix("/v1").encode()
            first, *lines = heads[0].split(b"\r\n")
            assert first == b"POST /v1/%C3%A4b/chat/completions HTTP/1.1"
            assert {b"host: " + host, b"authorization: Bearer sk-upstream-1", b"accept: application/json"} <= set(lines)

    monkeypatch.setenv("KEY", "sk-upstream-1")
    run(work())


def test_an_answer_that_nobody_read_is_no_part_of_the_next() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(WHOLE.replace(b"200 OK", b"429 Busy").replace(b"{}", b"[]"))
        await answering(wire)

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            with pytest.raises(UpstreamError, match="429"):
                await ask()
            assert [await ask(), await ask()] == [b"{}", b"{}"]
            assert server.opened == 1

    run(work())


def test_a_connection_that_was_closed_meanwhile_costs_no_attempt() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(WHOLE)  # and hangs up, without having said so

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            for _ in range(3):
                assert await ask() == b"{}"
                await asyncio.sleep(0.1)
            assert server.opened == 3

    run(work())


@pytest.mark.parametrize(("stale", "opened"), [(0.0, 2), (10.0, 1)])
def test_a_request_is_sent_twice_only_where_its_connection_was_idle(
    stale: float, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        if server.opened == 1:
            await wire.send(WHOLE)
            await wire.request()

    server: Server

    async def work() -> None:
        nonlocal server
        async with listening(handler) as server, asking(server.url) as ask:
            assert await ask() == b"{}"
            with pytest.raises(UpstreamError, match="hung up"):
                await ask()
            assert server.opened == opened

    monkeypatch.setattr(upstream_client, "_STALE", stale)
    run(work())


@pytest.mark.parametrize(
    ("pieces", "body", "kept"),
    [
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", WHOLE], b"{}", True),
        ([bytes([each]) for each in WHOLE], b"{}", True),
        (
            [
                CHUNKED + b"2;a=b\r\n{",
                b"}\r\n0\r\nx-digest: 1\r\n\r\n",
            ],
            b"{}",
            True,
        ),
        ([WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")], b"{}", False),
        ([WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0")], b"{}", False),
        ([WHOLE + WHOLE], b"{}", False),
        ([WHOLE + b"and more"], b"{}", False),
    ],
    ids=["announced", "byte by byte", "chunked", "closing", "1.0", "twice", "more"],
)
def test_answers_that_servers_give(pieces: list[bytes], body: bytes, kept: bool) -> None:
    async def handler(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(*pieces)

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            assert [await ask(), await ask()] == [body, body]
            assert server.opened == (1 if kept else 2)

    run(work())


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{", b'"a": 1}', pause=0.02)

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            assert await ask() == b'{"a": 1}'

    run(work())


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        (b"", UpstreamError, "hung up"),
        (b"HTTP/1.1 200 OK\r\ncontent-ty", UpstreamError, "hung up"),
        (WHOLE[:-1], UpstreamError, "hung up"),
        (
            WHOLE.replace(b"content-length: 2", b"transfer-encoding: chunked")[:-2] + b"5\r\n{}",
            UpstreamError,
            "hung up",
        ),
        (b"220 mail.example.org ESMTP\r\n", UpstreamError, "no HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", UpstreamError, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, UpstreamError, "without end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000, UpstreamError, "without end"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n" + b"x: y\r\n" * 100_000, UpstreamError, "without end"),
        (WHOLE.replace(b"content-length: 2", b"content-length: -2"), UpstreamError, "no HTTP"),
        (WHOLE.replace(b"application/json", b"text/html"), GarbledError, "no JSON"),
        (WHOLE.replace(b"200 OK", b"302 Found\r\nlocation: http://127.0.0.1:1/"), UpstreamError, "302"),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(said: bytes, error: type[Exception], why: str) -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(said)

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            with pytest.raises(error, match=why):
                await ask()

    run(work())


@pytest.mark.parametrize(
    "settings", [{"silence": 0.2, "timeout": 30.0}, {"silence": 30.0, "timeout": 0.2}], ids=["silence", "timeout"]
)
@pytest.mark.parametrize("begun", [b"", WHOLE[:30], WHOLE[:-1]], ids=["nothing", "head", "body"])
def test_a_server_that_says_no_more_is_not_waited_for(settings: dict[str, float], begun: bytes) -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(begun)
        await wire.reader.read()

    async def work() -> None:
        async with listening(handler) as server, asking(server.url, **settings) as ask:
            with pytest.raises(UpstreamError, match="in time"):
                await ask()

    run(work())


def test_a_server_that_drips_is_given_up_at_the_deadline() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(WHOLE.replace(b": 2", b": 5000")[:-2], *[b" "] * 5_000, pause=0.02)

    async def work() -> None:
        async with listening(handler) as server, asking(server.url, silence=10.0, timeout=0.5) as ask:
            with pytest.raises(UpstreamError, match="in time"):
                await ask()

    run(work())


def test_what_nobody_reads_is_not_held_in_memory() -> None:
    sent = 0

    async def handler(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(WHOLE.replace(b": 2", b": %d" % (1 << 28))[:-2])
        for _ in range(1 << 12):
            await wire.send(bytes(1 << 16))
            sent += 1 << 16

    async def work() -> None:
        async with listening(handler) as server:
            settings = UpstreamSettings.model_validate({"urls": [server.url], "model": "m"})
            client, address = UpstreamClient(settings), Address(server.url, Breaker(5, 30.0, 10.0))
            deadline = asyncio.get_running_loop().time() + 30
            answer = await client.answer(address, PATH, b"{}", deadline, kind=JSON)
            await asyncio.sleep(0.5)
            waiting = sent
            assert waiting < 16 << 20  # what the system holds between the two, and a little here
            received = 0
            while received < 64 << 20:
                received += len(await answer.read())
            assert sent > waiting
            answer.close()
            await client.close()

    run(work())


def test_what_comes_unasked_closes_a_connection() -> None:
    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(WHOLE)
        await asyncio.sleep(0.1)
        await wire.send(WHOLE)  # which would be the answer to the next
        await wire.reader.read()

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            assert await ask() == b"{}"
            await asyncio.sleep(0.3)
            assert await ask() == b"{}"
            assert server.opened == 2

    run(work())


def test_an_answer_before_the_request_was_read_ends_the_connection() -> None:
    async def handler(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(WHOLE)  # and the body is left where it is
        await asyncio.sleep(5)

    async def work() -> None:
        async with listening(handler) as server:
            settings = UpstreamSettings.model_validate({"urls": [server.url], "model": "m", "silence": 1.0})
            client, address = UpstreamClient(settings), Address(server.url, Breaker(5, 30.0, 10.0))
            for opened in (1, 2):
                deadline = asyncio.get_running_loop().time() + 30
                answer = await client.answer(address, PATH, bytes(32 << 20), deadline, kind=JSON)
                assert await answer.read() == b"{}"
                answer.close()
                assert server.opened == opened
            await client.close()

    run(work())


def test_nothing_is_asked_of_a_client_that_was_closed() -> None:
    async def work() -> None:
        async with listening(answering) as server, asking(server.url) as ask:
            assert await ask() == b"{}"
            opened = server.opened
        with pytest.raises(UpstreamError, match="hung up"):
            await ask()
        assert server.opened == opened

    run(work())


def test_a_name_with_a_dead_address_is_reached_by_its_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with listening(answering) as server:
            port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
            loop = asyncio.get_running_loop()

            async def both(*_: Any, **__: Any) -> list[Any]:
                return [(2, 1, 6, "", (place, port)) for place in ("127.0.0.2", "127.0.0.1")]

            monkeypatch.setattr(loop, "getaddrinfo", both, raising=False)
            async with asking(f"http://model.example:{port}/v1") as ask:
                assert await ask() == b"{}"

    run(work())


def test_connections_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []

    async def handler(wire: Wire) -> None:
        await wire.request()
        await wire.send(WHOLE)
        left.append(await wire.reader.read() == b"")

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            await asyncio.gather(ask(), ask())
            for _ in range(100):
                if len(left) == 2:
                    break
                await asyncio.sleep(0.05)
            assert len(left) == 2

    monkeypatch.setattr(upstream_client, "_KEEPALIVE", 0.3)
    run(work())


def test_whoever_leaves_hangs_up() -> None:
    left: list[bytes] = []

    async def handler(wire: Wire) -> None:
        await wire.request()
        try:
            left.append(await wire.reader.read())
        except ConnectionError:
            left.append(b"")

    async def work() -> None:
        async with listening(handler) as server, asking(server.url) as ask:
            task = asyncio.create_task(ask())
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.2)
            assert left == [b""]

    run(work())


def test_certificates_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    said = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *said.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def work(*, trusted: bool) -> None:
        async with listening(answering, tls) as server, asking(server.url) as ask:
            if trusted:
                assert [await ask(), await ask()] == [b"{}", b"{}"]
                assert server.opened == 1
            else:
                with pytest.raises(UpstreamError, match="SSLCertVerificationError"):
                    await ask()

    run(work(trusted=False))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    run(work(trusted=True))

"""A teacher behind an address: any server that answers ``POST /chat/completions`` as OpenAI's does.

The key goes to that server and nowhere else: redirects are refused. Time and size of an answer are limited; what fails
for a while is asked again, and a server that stays away ends the work with one line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from treadle.core.errors import MissingExtra, UserError
from treadle.core.secrets import conceal, is_reference, resolve
from treadle.lm.teacher import Prompt, Reply, Sampling

if TYPE_CHECKING:
    import httpx

_LARGEST = 4 << 20  # bytes of an answer
_LOCAL = ("127.0.0.1", "::1", "localhost")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_REFUSED = (400, 413, 422)  # what is wrong with one prompt, such as its length
_LOOK = 1.0  # seconds between two looks at whether the server is stuck
_HOPELESS = 3  # prompts refused in a row before any was answered: then it is not the prompts
_AGAIN = (408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class Limits:
    """``timeout``: seconds for one answer. ``retries``: attempts after the first. ``at_once``: prompts in flight."""

    timeout: float = 120.0
    retries: int = 3
    at_once: int = 4


class EndpointTeacher:
    """One model of one server; use it in a ``with`` block. ``where`` begins the errors."""

    def __init__(
        self, url: str, model: str, api_key: str | None, sampling: Sampling, limits: Limits, *, where: str
    ) -> None:
        check_endpoint(url, api_key, where)
        self._url, self._model, self._api_key = url.rstrip("/"), model, api_key
        self._sampling, self._limits, self._where = sampling, limits, where
        self._refusal = ""  # in its own words, which may quote a prompt: told, and not stored with what was made
        self._begun: dict[str, float] = {}  # when each prompt under way was sent
        self._ended = Event()
        self._client: httpx.Client | None = None

    def __enter__(self) -> EndpointTeacher:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", extra="serve") from None
        headers = {"User-Agent": "treadle", "Accept-Encoding": "identity"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {resolve(self._api_key)}"
        self._client = httpx.Client(headers=headers, timeout=self._limits.timeout, follow_redirects=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._client is not None:
            self._client.close()

    def answer(self, prompts: Sequence[Prompt], known: Container[str]) -> Iterator[tuple[Prompt, Reply]]:
        """As ``Teacher.answer``."""
        waiting = iter([prompt for prompt in prompts if prompt.id not in known])
        flying: dict[Future[Reply], Prompt] = {}
        refused = answered = 0
        lost: BaseException | None = None
        with ThreadPoolExecutor(self._limits.at_once, "teacher") as pool:
            try:
                while True:
                    while lost is None and len(flying) < self._limits.at_once and (prompt := next(waiting, None)):
                        flying[pool.submit(self._patiently, prompt)] = prompt
                    if not flying:
                        break
                    done, _ = wait(flying, timeout=_LOOK, return_when=FIRST_COMPLETED)
                    if lost is None and self._is_held_up():
                        lost = UserError(f"{self._told()} takes over {self._limits.timeout:g} s for one answer")
                        self._ended.set()
                        self._opened.close()  # whoever still reads from it gets an error now
                    for future in done:
                        prompt = flying.pop(future)
                        if (error := future.exception()) is not None:
                            lost = lost or error  # what is still under way is waited for, and kept
                            self._ended.set()
                            continue
                        reply = future.result()
                        answered, refused = (answered, refused + 1) if reply.refused else (answered + 1, refused)
                        if refused >= _HOPELESS and not answered:
                            lost = lost or UserError(f"{self._told()} refuses every prompt: {self._refusal}")
                        yield prompt, reply
            finally:
                self._ended.set()  # nobody pauses any longer before trying again
        if lost is not None:
            raise lost

    def _patiently(self, prompt: Prompt) -> Reply:
        import httpx

        pause, why = _FIRST_PAUSE, "was not asked"
        for tried in range(self._limits.retries + 1):
            asked_for: float | None = None
            try:
                status, headers, content = self._once(prompt)
                if status == 200:
                    return self._reply(content)
                if status in _REFUSED:
                    self._refusal = f"it answered {status}{_said(content)}"
                    return Reply(refused=f"it answered {status}")
                why = f"answered {status}{_said(content)}"
                if status < 500 and status not in _AGAIN:
                    raise UserError(f"{self._told()} {why}; check url, model and api_key")
                asked_for = _seconds(headers.get("retry-after", ""))
            except (httpx.TransportError, httpx.DecodingError) as error:
                why = f"does not answer ({type(error).__name__})"
            except _BadAnswerError as error:
                why = str(error)
            seconds = pause if asked_for is None else asked_for
            if tried < self._limits.retries and self._ended.wait(min(seconds, _LONGEST_PAUSE)):
                break
            pause *= 2
        tries = self._limits.retries + 1
        raise UserError(f"{self._told()} {why}, tried {tries} time{'s' if tries > 1 else ''}")

    def _once(self, prompt: Prompt) -> tuple[int, dict[str, str], bytes]:
        self._begun[prompt.id] = time.monotonic()
        deadline = self._begun[prompt.id] + self._limits.timeout
        received = bytearray()
        try:
            with self._opened.stream("POST", f"{self._url}/chat/completions", json=self._body(prompt)) as answer:
                for piece in answer.iter_raw():
                    received += piece
                    if len(received) > _LARGEST:
                        raise UserError(f"{self._told()} answered with more than {_LARGEST:,} bytes")
                    if time.monotonic() > deadline:
                        raise _BadAnswerError(f"takes over {self._limits.timeout:g} s for one answer")
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return answer.status_code, headers, bytes(received)
        finally:
            del self._begun[prompt.id]

    def _is_held_up(self) -> bool:
        """Whether an answer takes far longer than it may: a server that drips its headers never gets to what it says,
        where the time is looked at."""
        longest = 2 * self._limits.timeout + _LOOK
        return any(time.monotonic() - begun > longest for begun in list(self._begun.values()))

    @property
    def _opened(self) -> httpx.Client:
        assert self._client is not None
        return self._client

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        sampling = self._sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(prompt.messages),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.temperature > 0:
            body |= {"top_p": sampling.top_p, "seed": prompt.seed}
        return body

    def _reply(self, content: bytes) -> Reply:
        try:
            value = json.loads(content)
            choice = value["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
            by = value.get("system_fingerprint") or value.get("model") or ""
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise _BadAnswerError("answered something that is no chat completion") from None
        if text is None:
            self._refusal = "it answered without a text"
            return Reply(refused=self._refusal)
        if not isinstance(text, str):
            raise _BadAnswerError("answered something that is no chat completion")
        return Reply(text, cut=reason == "length", by=str(by)[:200])

    def _told(self) -> str:
        return f"{self._where}: {urlsplit(self._url).netloc}"


class _BadAnswerError(Exception):
    """An answer that is none; asking again may work."""


def check_endpoint(url: str, api_key: str | None, where: str) -> None:
    """``UserError`` for an address that is none or has a login in it, a key in the file, or a key sent in the clear."""
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname or ""
        plain = parts.port != 0 and "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        scheme, host, plain = "", "", False
    if scheme not in ("http", "https") or not host or not plain:
        raise UserError(f"{where}.url: expected an address such as https://host/v1, without a login in it")
    if api_key is not None and not is_reference(api_key):
        raise UserError(f"{where}.api_key: a key does not stand in the file; write `api_key: ${{env:NAME}}`")
    if api_key is not None and scheme == "http" and host not in _LOCAL:
        raise UserError(f"{where}.url: a key is sent over https only; give an address that begins with https://")


def _said(content: bytes) -> str:
    """What a server says of its refusal, in a few words."""
    with suppress(ValueError, RecursionError, LookupError, TypeError, AttributeError):
        value = json.loads(content)["error"]
        said = str(value["message"] if isinstance(value, dict) else value)
        return f" ({conceal(' '.join(said.split())[:120])})"
    return ""


def _seconds(value: str) -> float | None:
    return float(value) if value.isascii() and value.isdigit() and len(value) < 7 else None

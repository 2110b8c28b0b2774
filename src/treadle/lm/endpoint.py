"""A teacher behind an address: any server that answers ``POST /chat/completions`` as OpenAI's does.

The key goes to that server and nowhere else: redirects are refused. Time and size of an answer are limited; what fails
for a while is asked again, and a server that stays away ends the work with one line.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Container, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from treadle.core.errors import MissingExtra, UserError
from treadle.core.secrets import conceal
from treadle.lm.endpoint_address import check_endpoint, key_of, no_address
from treadle.lm.teacher import Prompt, Reply, Sampling
from treadle.lm.wire import Wire

if TYPE_CHECKING:
    import httpx

_LARGEST = 4 << 20  # bytes of an answer
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_REFUSED = (400, 413, 422)  # what is wrong with one prompt, such as its length
_LOOK = 1.0  # seconds between two looks at whether the server is stuck
_HOPELESS = 3  # prompts refused in a row before any was answered: then it is not the prompts
_CONNECT = 15.0  # seconds
_SHORTEST = 8  # characters of a key that is looked for in answers; a shorter one may be a word
_HALVES = re.compile("[\ud800-\udfff]")
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
        self._key = ""  # the key itself, which is sent and told nobody
        self._refusal = ""  # in its own words, which may quote a prompt: told, and not stored with what was made
        self._begun: dict[str, float] = {}  # when each prompt under way was sent
        self._ended = Event()
        self._client: httpx.Client | None = None
        self._wire = Wire()

    def __enter__(self) -> EndpointTeacher:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", extra="serve") from None
        try:
            _ = httpx.URL(self._url).host
        except (httpx.InvalidURL, UnicodeError):
            raise no_address(self._where) from None
        headers = {"User-Agent": "treadle", "Accept-Encoding": "identity"}
        if self._api_key is not None:
            self._key = key_of(self._api_key, self._where)
            headers["Authorization"] = f"Bearer {self._key}"
        # Through no proxy that the environment names: key and texts go to that server and nowhere else.
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(self._limits.timeout, connect=min(self._limits.timeout, _CONNECT)),
            follow_redirects=False,
            trust_env=False,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def answer(self, prompts: Sequence[Prompt], known: Container[str]) -> Iterator[tuple[Prompt, Reply]]:
        """As ``Teacher.answer``.

        Refusals count once a prompt was answered: before, it may be the server that is wrong. A prompt that fails is
        asked again at the end, and counts as refused where another is answered after that.
        """
        others = [prompt for prompt in prompts if prompt.id in known]  # to try the server with
        refused: list[tuple[Prompt, Reply]] = []
        failed: list[tuple[Prompt, _FailedError]] = []
        answers, in_a_row = False, 0
        with closing(self._replies([prompt for prompt in prompts if prompt.id not in known])) as replies:
            for prompt, reply in replies:
                if isinstance(reply, _FailedError):
                    failed.append((prompt, reply))
                    in_a_row += 1
                    if in_a_row >= _HOPELESS and not self._answers_one_of(others):
                        raise reply
                    in_a_row %= _HOPELESS
                    continue
                if reply.refused:
                    refused.append((prompt, reply))
                    answers = answers or (len(refused) >= _HOPELESS and self._require_answers(others))
                else:
                    others.append(prompt)
                    answers, in_a_row = True, 0
                    yield prompt, reply
                if answers:
                    yield from refused
                    refused = []
        if refused:
            self._require_answers(others)
            yield from refused
        if failed:
            yield from self._once_more(failed, others)

    def _once_more(
        self, failed: Sequence[tuple[Prompt, _FailedError]], others: Sequence[Prompt]
    ) -> Iterator[tuple[Prompt, Reply]]:
        if not others:
            raise failed[0][1]
        left: list[tuple[Prompt, _FailedError]] = []
        for prompt, reply in self._replies([prompt for prompt, _ in failed]):
            if isinstance(reply, _FailedError):
                left.append((prompt, reply))
            else:
                yield prompt, reply
        if left and not self._answers_one_of(others):
            raise left[0][1]
        for prompt, error in left:
            yield prompt, Reply(refused=error.why)

    def _require_answers(self, others: Sequence[Prompt]) -> bool:
        if not self._answers_one_of(others):
            raise UserError(f"{self._told()} refuses every prompt: {self._refusal}")
        return True

    def _answers_one_of(self, others: Sequence[Prompt]) -> bool:
        """Whether the server answers now what it answered before."""
        for prompt in others[: -_HOPELESS - 1 : -1]:
            for _, reply in self._replies([prompt]):
                if isinstance(reply, _FailedError):
                    return False
                if not reply.refused:
                    return True
        return False

    def _replies(self, prompts: Sequence[Prompt]) -> Generator[tuple[Prompt, Reply | _FailedError]]:
        """Replies as they come. Whatever ends this early hangs up, and waits for nothing that is under way."""
        waiting = iter(prompts)
        flying: dict[Future[Reply], Prompt] = {}
        lost: BaseException | None = None
        with ThreadPoolExecutor(self._limits.at_once, "teacher") as pool:
            try:
                while True:
                    while lost is None and len(flying) < self._limits.at_once and (prompt := next(waiting, None)):
                        flying[pool.submit(self._patiently, prompt)] = prompt
                    if not flying:
                        break
                    done, _ = wait(flying, timeout=_LOOK, return_when=FIRST_COMPLETED)
                    if self._is_held_up():
                        lost = lost or UserError(f"{self._told()} takes over {self._limits.timeout:g} s for one answer")
                        self._hang_up()
                    for future in done:
                        prompt, error = flying.pop(future), future.exception()
                        if error is None:
                            yield prompt, future.result()
                        elif isinstance(error, _FailedError):
                            yield prompt, error
                        else:
                            lost = lost or error  # what is still under way is waited for, and kept
                            self._ended.set()  # nobody pauses any longer before trying again
            except BaseException:
                self._hang_up()
                raise
        if lost is not None:
            raise lost

    def _hang_up(self) -> None:
        self._ended.set()
        self._wire.cut()
        if self._client is not None:
            self._client.close()

    def _patiently(self, prompt: Prompt) -> Reply:
        import httpx

        pause, why, alone = _FIRST_PAUSE, "was not asked", ""
        for tried in range(self._limits.retries + 1):
            asked_for: float | None = None
            try:
                status, headers, content = self._once(prompt)
                if status == 200:
                    return self._reply(content)
                said = _said(content, self._key)
                if status in _REFUSED:
                    self._refusal = f"it answered {status}{said}"
                    return Reply(refused=f"it answered {status}")
                why, alone = f"answered {status}{said}", f"it answered {status}" if status >= 500 else ""
                if status < 500 and status not in _AGAIN:
                    raise UserError(f"{self._told()} {why}; check url, model and api_key")
                asked_for = _seconds(headers.get("retry-after", ""))
            except (httpx.TransportError, httpx.DecodingError) as error:
                why, alone = f"does not answer ({type(error).__name__})", ""
            except _BadAnswerError as error:
                why, alone = str(error), f"it {error}"
            seconds = pause if asked_for is None else asked_for
            if tried < self._limits.retries and self._ended.wait(min(seconds, _LONGEST_PAUSE)):
                break
            pause *= 2
        tries = self._limits.retries + 1
        told = f"{self._told()} {why}, tried {tries} time{'s' if tries > 1 else ''}"
        raise _FailedError(told, alone) if alone else UserError(told)

    def _once(self, prompt: Prompt) -> tuple[int, dict[str, str], bytes]:
        self._begun[prompt.id] = time.monotonic()
        deadline = self._begun[prompt.id] + self._limits.timeout
        received = bytearray()
        url, body, watched = f"{self._url}/chat/completions", self._body(prompt), {"trace": self._wire.follow}
        try:
            with self._opened.stream("POST", url, json=body, extensions=watched) as answer:
                for piece in answer.iter_raw():
                    received += piece
                    if len(received) > _LARGEST:
                        why = f"answered with more than {_LARGEST:,} bytes"
                        raise _FailedError(f"{self._told()} {why}", f"it {why}")
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
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
            by = value.get("system_fingerprint") or value.get("model") or ""
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise _BadAnswerError("answered something that is no chat completion") from None
        if text is None:
            self._refusal = "it answered without a text"
            return Reply(refused=self._refusal)
        if not isinstance(text, str):
            raise _BadAnswerError("answered something that is no chat completion")
        return Reply(self._clean(text), cut=reason == "length", by=self._clean(str(by))[:200])

    def _clean(self, said: str) -> str:
        """Without halves of characters, which no file takes, and without the key."""
        return _hidden(_HALVES.sub("\ufffd", said), self._key if len(self._key) >= _SHORTEST else "")

    def _told(self) -> str:
        return f"{self._where}: {urlsplit(self._url).netloc}"


class _BadAnswerError(Exception):
    """An answer that is none; asking again may work."""


class _FailedError(UserError):
    """A prompt that got no answer, which may be its own fault or the server's. ``why`` quotes nobody."""

    def __init__(self, told: str, why: str) -> None:
        super().__init__(told)
        self.why = why


def _said(content: bytes, key: str) -> str:
    """What a server says of its refusal, in a few words."""
    with suppress(ValueError, RecursionError, LookupError, TypeError, AttributeError):
        value = json.loads(content)["error"]
        said = str(value["message"] if isinstance(value, dict) else value)
        return f" ({conceal(' '.join(_hidden(said, key).split()))[:120]})"  # cut last: half a key is no word to find
    return ""


def _hidden(text: str, key: str) -> str:
    return text.replace(key, "[secret]") if key else text


def _seconds(value: str) -> float | None:
    return float(value) if value.isascii() and value.isdigit() and len(value) < 7 else None

"""Sessions: kept by the server, named by a random cookie of which only the hash is held, and ended by time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from treadle.console.links import Person
from treadle.reviewing import Said

SESSION_SECONDS = 12 * 3600.0
IDLE_SECONDS = 2 * 3600.0
_MOST = 1_000  # sessions at once; the one that was idle longest goes
_REMEMBERED = 500  # reviewed items of one session

Appearance = Literal["auto", "light", "dark"]


@dataclass
class Session:
    """What one browser has done so far. ``csrf`` stands in each of its forms; ``link`` is the link that began it."""

    person: Person
    link: str
    ends: float
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    appearance: Appearance = "auto"
    notice: str = ""
    labelled: deque[Said] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    looked_at: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    skipped: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def take_notice(self) -> str:
        """What the last action led to; said once."""
        said, self.notice = self.notice, ""
        return said


class Sessions:
    """Begins, finds and ends sessions; ``clock`` gives seconds, from any start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, person: Person, link: str = "") -> str:
        """A new session; returns the cookie that names it."""
        cookie, moment = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._held[_hash(cookie)] = Session(person, link, moment + SESSION_SECONDS, moment)
            while len(self._held) > _MOST:
                self._held.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session a cookie names, unless it is over."""
        name, moment = _hash(cookie), self._clock()
        with self._lock:
            session = self._held.get(name)
            if session is None:
                return None
            if moment > session.ends or moment > session.used + IDLE_SECONDS:
                del self._held[name]
                return None
            session.used = moment
            self._held.move_to_end(name)
            return session

    def end(self, cookie: str) -> None:
        """Leave."""
        with self._lock:
            self._held.pop(_hash(cookie), None)


class Door:
    """For those who come with the API key: compares it, and slows guessing down.

    A form that nobody is signed in for is tied to a cookie: its token is a keyed digest of it.
    """

    WINDOW = 60.0  # seconds
    EACH, ALL = 5, 60  # failures in a window, of one address and of all together

    def __init__(self, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._failures: deque[tuple[float, str]] = deque(maxlen=self.ALL)
        self._lock = threading.Lock()

    def token(self, cookie: str) -> str:
        """What a form shown together with this cookie must bring back."""
        return hmac.new(self._secret, cookie.encode(), hashlib.sha256).hexdigest()

    def held(self, address: str) -> bool:
        """Whether somebody at that address has to wait."""
        before = self._clock() - self.WINDOW
        with self._lock:
            while self._failures and self._failures[0][0] < before:
                self._failures.popleft()
            return len(self._failures) >= self.ALL or sum(a == address for _, a in self._failures) >= self.EACH

    def opens(self, given: str, address: str) -> bool:
        """Whether that is the key, compared in constant time; a failure counts."""
        mine, theirs = (hmac.new(self._secret, text.encode(), hashlib.sha256).digest() for text in (self._key, given))
        if hmac.compare_digest(mine, theirs):
            return True
        with self._lock:
            self._failures.append((self._clock(), address))
        return False


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()

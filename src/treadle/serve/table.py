"""Which releases answer, and which of them a request gets.

A table is exchanged as a whole. A request chooses once, when it arrives, and keeps what it got to its end, so no answer
ever mixes two releases.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from treadle.serve.errors import model_not_found, no_model
from treadle.serve.release import Serving

_STEPS = 1 << 53  # a fraction is one of so many, all of which a float can tell apart


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a request got. ``share`` is the probability with which it was drawn, None where it was asked for by name."""

    serving: Serving
    share: float | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """A release on trial that gets copies of ``share`` of the requests; at most so many wait and are answered at
    once."""

    serving: Serving
    share: float
    waiting: int = 64
    at_once: int = 2


@dataclass(frozen=True, slots=True)
class Table:
    """The champion answers, and the canary ``share`` of the requests that name neither; 0 to 1.

    ``spare`` is open and answers nothing: the champion before this one, so that going back needs no loading.
    ``fallback`` answers what these cannot, or everything where there is no champion.
    """

    champion: Serving | None = None
    canary: Serving | None = None
    share: float = 0.0
    spare: Serving | None = None
    fallback: Serving | None = None
    shadow: Shadow | None = None

    def answering(self) -> list[Serving]:
        """What requests can get."""
        return [each for each in (self.champion, self.canary) if each is not None]

    def held(self) -> list[Serving]:
        """Everything whose engine has to be open, each once."""
        shadow = self.shadow.serving if self.shadow is not None else None
        others = [each for each in (self.spare, self.fallback, shadow) if each is not None]
        return list({id(each.engine): each for each in [*others, *self.answering()]}.values())

    def share_of(self, serving: Serving) -> float:
        """The probability with which a request that names nothing gets it."""
        if serving is self.canary:
            return self.share
        if serving is not self.champion:
            return 0.0
        return 1.0 if self.canary is None else round(1 - self.share, 9)

    def choose(self, model: str | None, person: str | None) -> Chosen:
        """What a request gets: by the name it asks for, else by lot.

        ``person`` is a keyed digest of whoever sticks to a release, who gets the same for as long as a canary lasts,
        also when its share grows. Raises 404 for a name that nothing here answers to, 503 when nothing answers at all.
        """
        if self.champion is None and self.fallback is not None and model in (None, self.fallback.release.base):
            return Chosen(self.fallback, None)
        if self.champion is None:
            raise no_model()
        if model is None or model == self.champion.release.base:
            return self._drawn(person)
        for serving in self.answering():
            if serving.release.is_named(model):
                return Chosen(serving, None)
        raise model_not_found(model, self.champion.release.name)

    def _drawn(self, person: str | None) -> Chosen:
        assert self.champion is not None
        chosen = self.champion
        if self.canary is not None:
            lot = secrets.randbelow(_STEPS) if person is None else _lot(person, self.canary.release.digest)
            if lot < self.share * _STEPS:
                chosen = self.canary
        return Chosen(chosen, self.share_of(chosen))


def _lot(person: str, canary: str) -> int:
    """The place of a person in the draw of one canary, the same each time; another in the next canary's."""
    found = hashlib.blake2b(f"{canary} {person}".encode(), digest_size=8).digest()
    return int.from_bytes(found, "big") % _STEPS

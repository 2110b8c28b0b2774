"""Two processes on two machines that talk over a pair of byte streams: lines of JSON, and objects behind some of them.

Nothing that the other side sends is believed: lines and objects have limits, and an object is taken in only when its
bytes have the digest that it was asked for by.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from treadle.core.artifacts import Artifact
from treadle.core.digest import PREFIX, is_digest
from treadle.core.errors import Corrupt
from treadle.core.store import Store

_LINE = 256 << 20  # bytes of a line at most: some three million digests
_OBJECT = 1 << 40  # bytes of an object at most
_PIECE = 1 << 20


class Gone(Exception):
    """The other side is not there any more."""


class Channel:
    """One side. ``moved`` counts objects that were sent or came."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader, self._writer = reader, writer
        self.moved = 0

    def say(self, kind: str, **body: Any) -> None:
        """Send a line."""
        try:
            self._writer.write(json.dumps({"kind": kind, **body}).encode() + b"\n")
            self._writer.flush()
        except (OSError, ValueError):
            raise Gone from None

    def hear(self, *kinds: str) -> dict[str, Any]:
        """The next line; ``Gone`` when there is none, ``Corrupt`` for anything but one of ``kinds``."""
        try:
            line = self._reader.readline(_LINE)
        except (OSError, ValueError):
            raise Gone from None
        if not line.endswith(b"\n"):
            raise Gone
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.get("kind") not in kinds:
            raise Corrupt(f"the other machine said something else than {' or '.join(kinds)}: {line[:80]!r}")
        return found

    # -- objects

    def fetch(self, store: Store, artifacts: Iterable[str]) -> None:
        """Ask for what of these artifacts is not in the store: manifests first, then the files they name."""
        named = sorted({digest for digest in artifacts if is_digest(digest)})
        self._fetch_objects(store, [digest for digest in named if not store.has_object(digest)])
        files = {entry.digest for digest in named for entry in store.entries(digest)}
        self._fetch_objects(store, sorted(digest for digest in files if not store.has_object(digest)))

    def _fetch_objects(self, store: Store, digests: list[str]) -> None:
        if not digests:
            return
        self.say("want", digests=digests)
        folder = store.new_folder("channel-")
        try:
            taken = [(self._take(folder / str(number), digest), digest) for number, digest in enumerate(digests)]
            store.adopt(taken)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _take(self, path: Path, digest: str) -> Path:
        about = self.hear("object")
        size = about.get("size")
        if about.get("digest") != digest or type(size) is not int or not 0 <= size <= _OBJECT:
            raise Corrupt(f"the other machine sent something else than the object {digest}")
        check, left = blake3(), size
        with path.open("xb") as file:
            while left:
                piece = self._reader.read(min(left, _PIECE))
                if not piece:
                    raise Gone
                check.update(piece)
                file.write(piece)
                left -= len(piece)
        if PREFIX + check.hexdigest() != digest:
            raise Corrupt(f"the other machine sent other bytes than those of the object {digest}")
        path.chmod(0o444)
        self.moved += 1
        return path

    def give(self, store: Store, wanted: Any, allowed: Iterable[Artifact]) -> None:
        """Send the objects that were asked for; ``Corrupt`` for one that is of none of the artifacts."""
        ours = {each for artifact in allowed for each in (artifact.digest, *(e.digest for e in artifact.entries()))}
        for digest in wanted:
            if digest not in ours:
                raise Corrupt(f"the other machine asked for {str(digest)[:80]!r}, which it has no business with")
            with store.open(digest) as file:
                self.say("object", digest=digest, size=store.size(digest))
                try:
                    shutil.copyfileobj(file, self._writer, _PIECE)
                    self._writer.flush()
                except (OSError, ValueError):
                    raise Gone from None
            self.moved += 1

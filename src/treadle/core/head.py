"""A signed head of the ledger, and the copy of it that lies outside the database.

The copy is what makes an older database that was put back noticeable. It is written behind the rows, never ahead of
them: only what would survive a loss of power is in it, and only a later head of the same history replaces it. A
copy that is missing or not valid is left as it is, for ``verify`` to name.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.core.keys import Keys, verify_signature

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Head:
    """The tree's root over the first ``size`` rows (hexadecimal), and an Ed25519 signature over both."""

    size: int
    root: str
    signature: str

    @classmethod
    def signed(cls, size: int, root: str, keys: Keys) -> Head:
        """A head with this project's signature."""
        return cls(size, root, keys.sign(_message(size, root)))

    def valid(self, keys: Keys) -> bool:
        """Whether the signature is this project's."""
        return self.valid_for(keys.public)

    def valid_for(self, public: str) -> bool:
        """Whether the signature is that of the holder of a public key."""
        return type(self.size) is int and verify_signature(public, self.message(), self.signature)

    def message(self) -> bytes:
        """What is signed."""
        return _message(self.size, self.root)

    def encode(self, public: str) -> bytes:
        """As it stands in files, with the public key in hexadecimal."""
        return canonical_json({"public_key": public, "root": self.root, "signature": self.signature, "size": self.size})

    @classmethod
    def decode(cls, data: bytes | str) -> Head:
        """The reverse of ``encode``, whoever signed it; ``ValueError`` for anything else."""
        try:
            found = json.loads(data)
            size, root, signature = found["size"], found["root"], found["signature"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a signed head: {error}") from None
        if type(size) is not int or size < 0 or not _is_hexadecimal(root, 64) or not _is_hexadecimal(signature, 128):
            raise ValueError("not a signed head: expected size, root and signature")
        return cls(size, root, signature)


class HeadFile:
    """``head.json``, beside the database."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self._keys = keys

    def stamp(self) -> Stamp | None:
        """Changes whenever the file does; None when there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def read(self) -> Head | None:
        """The head in the file, None when there is no file; ``Corrupt`` when it is not what was written."""
        try:
            data = self.path.read_bytes()
            found = json.loads(data)
            head = Head(found["size"], found["root"], found["signature"])
            if data != head.encode(self._keys.public):
                raise Corrupt(f"{self.path.name} was changed")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupt(f"{self.path.name} is not a signed head: {error}") from None
        if not head.valid(self._keys):
            raise Corrupt(f"{self.path.name} has a signature that is not this project's")
        return head

    def create(self, head: Head) -> None:
        """Write the first head of a ledger that has no rows; nothing when there is a file already."""
        self._write(head, first=True)

    def publish(self, head: Head) -> None:
        """Replace an earlier head by a later one. The rows are on the disk already; the file is before this returns."""
        self._write(head, first=False)

    def follow(self, head: Head, abandoned: Head) -> None:
        """Replace a head of rows that a restore lost by one of the history that is in force."""
        self._write(head, first=False, abandoned=abandoned)

    def _write(self, head: Head, *, first: bool, abandoned: Head | None = None) -> None:
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if first:
                if self.path.exists():
                    return
            else:
                try:
                    present = self.read()
                except Corrupt:
                    return
                if present is None or (present.size >= head.size and present != abandoned):
                    return
            temporary = self.path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(head.encode(self._keys.public))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)


def _message(size: int, root: str) -> bytes:
    return f"treadle ledger 1\n{size}\n{root}\n".encode("utf-8", "backslashreplace")


def _is_hexadecimal(text: object, digits: int) -> bool:
    return isinstance(text, str) and len(text) == digits and re.fullmatch("[0-9a-f]*", text) is not None

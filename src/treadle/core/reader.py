"""The plain bytes of an object, from wherever they lie, and whether they are those that were stored."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from treadle.core.cipher import Cipher, UnknownKey
from treadle.core.digest import PREFIX, blake3_bytes, blake3_file
from treadle.core.errors import Corrupt, UserError
from treadle.core.intake import copied
from treadle.core.loose import Stored
from treadle.core.packs import Packs

_PIECE = 1 << 20  # bytes read at a time


class Reader:
    """Opens what is stored. ``FileNotFoundError`` where it is gone, ``UserError`` where its key is not here."""

    def __init__(self, cipher: Cipher | None, packs: Packs, keys: Path) -> None:
        """``keys`` is the folder that says which keys were used here."""
        self._cipher, self._packs, self._keys = cipher, packs, keys

    def open(self, stored: Stored) -> BinaryIO:
        """As a file, unchecked but for what encryption checks by itself."""
        if stored.start is not None:
            return io.BytesIO(self._plain(self._packs.read(stored), stored))
        file = open(stored.path, "rb")  # noqa: PTH123, SIM115 (hot; handed out)
        if not stored.encrypted:
            return file
        try:
            return self._key(stored).open(file, stored.path)
        except UnknownKey as error:
            raise self._damage(error) from None
        except UserError:
            file.close()
            raise

    def read(self, digest: str, stored: Stored) -> bytes:
        """All of it; ``Corrupt`` when it changed."""
        data = Path(stored.path).read_bytes() if stored.start is None else self._packs.read(stored)
        return self.decoded(digest, data, stored)

    def decoded(self, digest: str, data: bytes, stored: Stored) -> bytes:
        """The plain bytes of what lies there; ``Corrupt`` when they changed."""
        with _Changed(digest):
            data = self._plain(data, stored)
        if blake3_bytes(data) != digest:
            raise changed(digest)
        return data

    def verified(self, digest: str, stored: Stored) -> BinaryIO:
        """As a file, after all of it was checked."""
        if stored.start is not None:
            return io.BytesIO(self.read(digest, stored))
        self.check(digest, stored)
        return self.open(stored)

    def check(self, digest: str, stored: Stored) -> None:
        """``Corrupt`` unless its bytes are those that were stored."""
        if stored.start is not None:
            self.read(digest, stored)
        elif not stored.encrypted:
            if blake3_file(stored.path) != digest:
                raise changed(digest)
        else:
            self._pass(digest, stored, None)

    def write(self, digest: str, stored: Stored, target: Path) -> None:
        """Put the bytes into a new file, checked as they pass; ``Corrupt`` when they changed."""
        if stored.start is not None:
            target.write_bytes(self.read(digest, stored))
        elif not stored.encrypted:
            if copied(stored.path, str(target))[0] != digest:
                raise changed(digest)
        else:
            with target.open("xb", buffering=0) as file:
                self._pass(digest, stored, file)

    def _pass(self, digest: str, stored: Stored, target: BinaryIO | io.RawIOBase | None) -> None:
        hasher = blake3()
        with _Changed(digest), self.open(stored) as file:
            while data := file.read(_PIECE):
                hasher.update(data)
                if target is not None:
                    target.write(data)
        if PREFIX + hasher.hexdigest() != digest:
            raise changed(digest)

    def _plain(self, data: bytes, stored: Stored) -> bytes:
        if not stored.encrypted:
            return data
        try:
            return self._key(stored).decrypt(data, stored.path)
        except UnknownKey as error:
            raise self._damage(error) from None

    def _damage(self, error: UnknownKey) -> UserError | Corrupt:
        """A key, or a format, that was never used here stands where a byte changed."""
        return error if (self._keys / error.key_id).exists() else Corrupt(str(error))

    def _key(self, stored: Stored) -> Cipher:
        if self._cipher is None:
            raise no_key(f"{stored.path} is encrypted")
        return self._cipher


def no_key(what: str) -> UserError:
    """That something is encrypted and the file names no key."""
    return UserError(f"{what}; name its key in treadle.yaml, as in: encryption: ${{env:NAME}}")


def changed(digest: str) -> Corrupt:
    """That an object is damaged."""
    return Corrupt(f"object {digest} is not what was stored: its bytes changed; run treadle verify")


class _Changed:
    """Says of which object it is that something cannot be decrypted."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, Corrupt):
            raise changed(self._digest) from None

"""Encryption at rest: bytes and files under AES-256-GCM, cut into segments so that a part can be read by itself.

    header    magic, number of this format, key id, salt
    segments  SEGMENT bytes of plaintext each (the last one fewer, or none), each followed by its tag

The segments are those of STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance, 2015): the nonce is the number of the segment and whether it is the last, and the header
is authenticated with each, so what was cut off, put in another order or taken from another file is noticed. Each file
has a key of its own, derived from the main key and a random salt, so no nonce is used twice however much is encrypted.

Names, and the number of bytes, are not hidden.
"""

from __future__ import annotations

import binascii
import io
import os
import re
import struct
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from treadle.core.errors import Corrupt, UserError
from treadle.core.secrets import is_reference, resolve

FORMAT = 1
SEGMENT = 256 << 10  # bytes of plaintext; fits the processor's cache
TAG = 16  # bytes after each segment
MAKE_KEY = "openssl rand -hex 32"

_MAGIC = b"\x93treadle"
_HEADER = struct.Struct(">8sB3x8s16s")  # magic, format, key id, salt
HEADER = _HEADER.size
_LIMIT = 64 << 10  # bytes of a file of keys


class UnknownKey(UserError):
    """What is encrypted names a key, or a format, that is not known here."""

    def __init__(self, message: str, key_id: str) -> None:
        super().__init__(message)
        self.key_id = key_id


class Cipher:
    """Encrypts under the first key and decrypts under each of them, so that keys can be changed.

    One made by ``open_cipher`` can be sent to another process: what travels is where the keys are, never a key.
    """

    def __init__(self, keys: Sequence[bytes], origin: tuple[str, Path] | None = None) -> None:
        if not keys or any(len(key) != 32 for key in keys):
            raise ValueError("expected keys of 32 bytes")
        self.key_id = _key_id(keys[0])
        self._keys = {_key_id(key): blake3(key, derive_key_context="treadle 1 files").digest() for key in keys}
        self._origin = origin

    def has(self, key_id: str) -> bool:
        """Whether a key of that id (hexadecimal) is here."""
        return key_id in {each.hex() for each in self._keys}

    def __reduce__(self) -> tuple[Callable[[str, Path], Cipher], tuple[str, Path]]:
        if self._origin is None:
            raise TypeError("keys are not sent to other processes; make the cipher by open_cipher")
        return open_cipher, self._origin

    # -- bytes

    def encrypt(self, data: bytes) -> bytes:
        """Header and segments of a few bytes."""
        stream = self.begin()
        if len(data) < SEGMENT:
            return stream.header + stream.seal(0, data, last=True)
        target = io.BytesIO()
        self.encrypt_file(io.BytesIO(data), target)
        return target.getvalue()

    def decrypt(self, data: bytes, what: str = "the data") -> bytes:
        """What was encrypted; ``Corrupt`` when it is not what it was, ``UnknownKey`` when its key is not here."""
        stream = self._resume(data[:HEADER], what)
        view = memoryview(data)[HEADER:]
        count = _segments(len(view), what)
        step = SEGMENT + TAG
        pieces = [stream.open(n, view[n * step : (n + 1) * step], last=n == count - 1) for n in range(count)]
        return pieces[0] if count == 1 else b"".join(pieces)

    # -- files

    def encrypt_file(
        self, source: BinaryIO, target: BinaryIO, watch: Callable[[memoryview], object] | None = None
    ) -> int:
        """Encrypt what is left of ``source`` onto ``target``; returns the bytes of plaintext.

        ``watch`` is shown each piece of plaintext, valid during the call only: to hash what is read once.
        """
        return self.encrypt_pieces(_shown(source, watch), target)

    def encrypt_pieces(self, pieces: Iterable[bytes | memoryview], target: BinaryIO) -> int:
        """Encrypt what comes in pieces of any size onto ``target``; returns the bytes of plaintext."""
        stream, held, number, size = self.begin(), bytearray(), 0, 0
        target.write(stream.header)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                if len(held) == SEGMENT:  # more is to come, so it is not the last
                    target.write(stream.seal(number, held, last=False))
                    number += 1
                    held.clear()
                taken = rest[: SEGMENT - len(held)]
                held += taken
                rest = rest[len(taken) :]
            size += len(piece)
        target.write(stream.seal(number, held, last=True))
        return size

    def decrypt_file(self, source: BinaryIO, target: BinaryIO, what: str = "the file") -> int:
        """Decrypt all of a seekable file onto ``target``; returns the bytes of plaintext. Errors as ``decrypt``."""
        size = 0
        with _Plain(self, source, what) as plain:
            for number in range(plain.count):
                size += target.write(plain.segment(number))
        return size

    def open(self, source: BinaryIO, what: str = "the file") -> BinaryIO:
        """A seekable encrypted file as its plaintext; only the segments that are asked for are read and decrypted.

        Closing it closes ``source``. Errors as ``decrypt``.
        """
        try:
            plain = _Plain(self, source, what, own=True)
        except BaseException:
            source.close()
            raise
        return cast(BinaryIO, io.BufferedReader(plain, SEGMENT))

    def is_current(self, head: bytes) -> bool:
        """Whether what begins with these bytes is encrypted under the first key."""
        return is_encrypted(head) and head[12:20] == self.key_id

    # -- streams

    def begin(self) -> Stream:
        """What encrypts the segments of one file, for a caller that reads and writes by itself."""
        salt = os.urandom(16)
        return Stream(_HEADER.pack(_MAGIC, FORMAT, self.key_id, salt), self._keys[self.key_id], salt, "")

    def _resume(self, header: bytes, what: str) -> Stream:
        if len(header) < HEADER or not is_encrypted(header):
            raise Corrupt(f"{what} is not encrypted as Treadle does it, or its first bytes changed")
        _, number, name, salt = _HEADER.unpack(header)
        if number != FORMAT:
            raise UnknownKey(
                f"{what} is encrypted in format {number}, this Treadle reads format {FORMAT}; use a newer",
                f"format {number}",
            )
        key = self._keys.get(name)
        if key is None:
            raise UnknownKey(
                f"{what} is encrypted under the key {name.hex()}, which is none of those given "
                f"({', '.join(each.hex() for each in self._keys)}); add the key that it was encrypted under",
                name.hex(),
            )
        return Stream(header, key, salt, what)


class Stream:
    """The segments of one file: the header, then each by its number, of ``SEGMENT`` bytes but for the last."""

    def __init__(self, header: bytes, key: bytes, salt: bytes, what: str) -> None:
        self.header = header
        self._aead = AESGCM(blake3(salt, key=key).digest())
        self._what = what

    def seal(self, number: int, piece: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        """A segment as it is written, in the order of the numbers."""
        return self._aead.encrypt(_nonce(number, last), piece, self.header)

    def seal_into(self, number: int, piece: memoryview, room: bytearray, at: int, *, last: bool) -> int:
        """The same, written into ``room`` from ``at`` on; returns how many bytes it takes there."""
        size = len(piece) + TAG
        self._aead.encrypt_into(_nonce(number, last), piece, self.header, memoryview(room)[at : at + size])
        return size

    def open(self, number: int, piece: bytes | bytearray | memoryview, *, last: bool) -> bytes:
        """The plaintext of a segment; ``Corrupt`` when it is not what was written as this one."""
        try:
            return self._aead.decrypt(_nonce(number, last), piece, self.header)
        except InvalidTag:
            raise Corrupt(f"{self._what} is not what was encrypted: its bytes changed") from None


class _Plain(io.RawIOBase):
    """The plaintext of an encrypted file, a segment at a time."""

    def __init__(self, cipher: Cipher, source: BinaryIO, what: str, *, own: bool = False) -> None:
        self._source, self._own, self._what = source, own, what
        source.seek(0)
        self._stream = cipher._resume(source.read(HEADER), what)
        length = source.seek(0, os.SEEK_END) - HEADER
        self.count = _segments(length, what)
        self._size = length - self.count * TAG
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def segment(self, number: int) -> bytes:
        if self._held[0] != number:
            self._source.seek(HEADER + number * (SEGMENT + TAG))
            piece = self._source.read(SEGMENT + TAG)
            self._held = (number, self._stream.open(number, piece, last=number == self.count - 1))
        return self._held[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the start of the file")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._at >= self._size:
            if self._size == 0:  # nothing to give, and that too is to be proved
                self.segment(0)
            return 0
        number, start = divmod(self._at, SEGMENT)
        piece = memoryview(self.segment(number))[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        if self._own and not self.closed:
            self._source.close()
        super().close()


def is_encrypted(head: bytes) -> bool:
    """Whether bytes begin as what this module encrypts does."""
    return head.startswith(_MAGIC)


def encrypted_size(size: int) -> int:
    """Bytes that so many bytes of plaintext take."""
    return HEADER + size + TAG * max(1, -(-size // SEGMENT))


def plain_size(size: int) -> int:
    """Bytes of plaintext in so many encrypted ones; ``Corrupt`` when there is no such number."""
    return size - HEADER - TAG * _segments(size - HEADER, "the file")


def _segments(length: int, what: str) -> int:
    """How many segments these bytes after the header are."""
    count = -(-length // (SEGMENT + TAG))
    rest = length - (count - 1) * (SEGMENT + TAG)
    if count < 1 or rest < TAG or (rest == TAG and count > 1):
        raise Corrupt(f"{what} is not what was encrypted: a part of it is missing")
    return count


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _shown(source: BinaryIO, watch: Callable[[memoryview], object] | None) -> Iterator[memoryview]:
    """What is left of a file, each piece shown first."""
    buffer = bytearray(SEGMENT)
    while count := source.readinto(buffer):  # type: ignore[attr-defined]
        piece = memoryview(buffer)[:count]
        if watch is not None:
            watch(piece)
        yield piece


def _key_id(key: bytes) -> bytes:
    return blake3(key, derive_key_context="treadle 1 key id").digest()[:8]


# -- where keys come from


def open_cipher(setting: str, folder: Path) -> Cipher:
    """The cipher of a setting: ``${env:NAME}``, or a file of keys (relative to ``folder``) that others cannot read.

    Either holds one or more keys, each 32 bytes in hexadecimal or base64, with space or lines between them: the first
    encrypts, all decrypt. ``UserError`` for anything else; no message shows a key.
    """
    origin = (setting, folder.absolute())
    if read_key(setting) is not None:
        raise UserError("encryption: holds a key itself; write ${env:NAME}, or the name of a file with the key")
    if is_reference(setting):
        return Cipher(read_keys(resolve(setting), setting), origin)
    path = origin[1] / setting
    return Cipher(read_keys(_read_file(path), str(path)), origin)


def read_keys(text: str, where: str) -> list[bytes]:
    """The keys in a text; lines that start with ``#`` are comments."""
    words = [word for line in text.splitlines() if not line.lstrip().startswith("#") for word in line.split()]
    keys = [read_key(word) for word in words]
    if not keys or None in keys:
        raise UserError(f"{where}: expected keys of 32 bytes in hexadecimal or base64; make one with: {MAKE_KEY}")
    return [key for key in keys if key is not None]


def read_key(word: str) -> bytes | None:
    """A key as it is written, or None."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", word):
        return bytes.fromhex(word)
    if not re.fullmatch(r"[A-Za-z0-9+/_-]{43}=?", word):
        return None
    try:
        key = b64decode(word.rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == 32 else None


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UserError(f"the keys in {path} can be read by others; run: chmod 600 {path}")
            return file.read(_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        raise UserError(
            f"there is no file of keys {path}; make one with: "
            f"(umask 077; {MAKE_KEY} > {path}), and keep a copy elsewhere"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the keys in {path}: {error.strerror}") from None

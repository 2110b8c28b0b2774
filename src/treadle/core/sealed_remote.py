"""A remote with encryption: objects, lists and chunks are encrypted before they leave, and decrypted when they come.

Their names stay digests of the plaintext, so whoever sees the remote learns which objects it has and how long they
are, and can tell whether it has a file that they have themselves. What lies there unencrypted, from before there were
keys, is read as it is: whoever reads checks digests.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from treadle.core.chunks import LARGEST
from treadle.core.cipher import HEADER, Cipher, encrypted_size, is_encrypted
from treadle.core.digest import blake3_bytes
from treadle.core.errors import Corrupt, UserError
from treadle.core.remote import Item, Remote, digest_in

KINDS = ("objects", "lists", "chunks")
_TRIES = 3  # of what cannot be decrypted: the way may be to blame
_AT_ONCE = 4  # objects that are encrypted anew side by side


class SealedRemote:
    """As ``Remote``. Without a cipher nothing is encrypted, and what is encrypted there is refused with what to do."""

    def __init__(self, remote: Remote, cipher: Cipher | None) -> None:
        self.url = remote.url
        self._remote, self._cipher = remote, cipher

    def names(self, prefix: str) -> Iterator[str]:
        """As ``Remote``."""
        return self._remote.names(prefix)

    def items(self, prefix: str) -> Iterator[Item]:
        """As ``Remote``; the sizes are those that are taken there."""
        return self._remote.items(prefix)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As ``Remote``; ``Corrupt`` when it is not what was encrypted."""
        if not _is_sealed(name):
            return self._remote.read(name, start, length)
        for tries_left in reversed(range(_TRIES)):
            try:
                return self._read(name, start, length)
            except Corrupt:
                if not tries_left:
                    raise
        raise AssertionError

    def _read(self, name: str, start: int, length: int | None) -> bytes:
        if start:
            if is_encrypted(self._remote.read(name, 0, HEADER)):
                raise Corrupt(f"{self.url}/{name} is encrypted in one piece; push it to a remote, and pull from there")
            return self._remote.read(name, start, length)
        data = self._remote.read(name, 0, None if length is None else max(length, encrypted_size(LARGEST)))
        if is_encrypted(data) and blake3_bytes(data) != digest_in(name):
            if self._cipher is None:
                raise UserError(
                    f"{self.url} is encrypted; name its keys by encryption in treadle.yaml, for treadle serve"
                    " --release-folder by TREADLE_ENCRYPTION_KEY"
                )
            data = self._cipher.decrypt(data, f"{self.url}/{name}")
        return data if length is None else data[:length]

    def write(self, name: str, data: bytes) -> None:
        """As ``Remote``."""
        encrypts = self._cipher is not None and _is_sealed(name)
        self._remote.write(name, self._cipher.encrypt(data) if self._cipher is not None and encrypts else data)

    def renew(self, name: str) -> None:
        """As ``Remote``."""
        self._remote.renew(name)

    def delete(self, name: str) -> None:
        """As ``Remote``."""
        self._remote.delete(name)


class SealedAgain(NamedTuple):
    """What became of one name: bytes that were written anew (None when it was right already), or what is wrong."""

    name: str
    bytes: int | None = None
    problem: str = ""


def seal_again(remote: Remote, cipher: Cipher, *, off: bool = False) -> Iterator[SealedAgain]:
    """Encrypt under the first key what lies at a remote under another one, or under none; with ``off``, decrypt what
    is encrypted. What is right already is passed over.

    Each is replaced whole, so it can be interrupted, goes on, and nobody who has all keys notices.
    """
    sealed = SealedRemote(remote, cipher)

    def again(name: str) -> SealedAgain:
        try:
            head = remote.read(name, 0, HEADER)
            if cipher.is_current(head) if not off else not is_encrypted(head):
                return SealedAgain(name)
            data = sealed.read(name)
            if not name.startswith("lists/") and blake3_bytes(data) != digest_in(name):
                return SealedAgain(name, None, "its bytes are not those that were stored")
            (remote if off else sealed).write(name, data)
        except FileNotFoundError:  # deleted just now
            return SealedAgain(name)
        except Corrupt as error:
            return SealedAgain(name, None, str(error))
        return SealedAgain(name, len(data))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for kind in KINDS:
            yield from pool.map(again, remote.names(f"{kind}/"))


def _is_sealed(name: str) -> bool:
    return name.partition("/")[0] in KINDS

"""Another project's store as a remote to pull from: objects by name, however they lie there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from treadle.core.cipher import Cipher
from treadle.core.digest import PREFIX
from treadle.core.errors import Corrupt
from treadle.core.remote import Item, Remote, place
from treadle.core.store import Store


class StoreRemote:
    """Reads only. What is encrypted there is decrypted by the keys of the store that pulls."""

    def __init__(self, folder: Path, cipher: Cipher | None) -> None:
        self.url = str(folder)
        self._store = Store(folder, cipher)
        self._store.check_keys()

    def names(self, prefix: str) -> Iterator[str]:
        """As ``Remote``."""
        if prefix == "objects/":
            yield from (place("objects", digest) for digest, _ in self._store.objects())

    def items(self, prefix: str) -> Iterator[Item]:
        """As ``Remote``."""
        if prefix == "objects/":
            for digest, stored in self._store.objects():
                yield Item(place("objects", digest), stored.length, stored.modified)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As ``Remote``."""
        digest = PREFIX + "".join(name.split("/")[1:])
        if not name.startswith("objects/") or not self._store.has_object(digest):
            raise FileNotFoundError(name)
        try:
            with self._store.open_unverified(digest) as file:
                file.seek(start)
                return file.read(-1 if length is None else length)
        except Corrupt:
            return b""  # what is damaged there; whoever reads it checks the digest

    def write(self, name: str, data: bytes) -> None:
        """As ``Remote``."""
        raise PermissionError(f"{self.url} is a project's own store")

    def renew(self, name: str) -> None:
        """As ``Remote``."""
        raise PermissionError(f"{self.url} is a project's own store")

    def delete(self, name: str) -> None:
        """As ``Remote``."""
        raise PermissionError(f"{self.url} is a project's own store")


def readable(remote: Remote, cipher: Cipher | None) -> Remote:
    """The remote, or what reads it where it is a project's store in a folder."""
    folder = Path(remote.url)
    if (folder / "format").is_file() and not (folder / "remote").exists():
        return StoreRemote(folder, cipher)
    return remote

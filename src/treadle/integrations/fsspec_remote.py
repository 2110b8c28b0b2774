"""Remotes that fsspec opens: S3 and what speaks like it, Google Cloud Storage, Azure.

Keys and endpoints come from each service's own environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_CONNECTION_STRING` ...), never from the address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.core.remote import Item


def _options(scheme: str) -> dict[str, Any]:
    """Arguments for one kind of file system: whoever asks a remote asks again, and the libraries' own attempts would
    multiply with those. One second attempt is left to the library: a listing is several requests, and asking for all of
    them again because one failed rarely ends."""
    if scheme == "s3":
        waits = {"retries": {"max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
        return {"config_kwargs": {**waits, "max_pool_connections": 32}}
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    return {"connection_string": connection} if scheme in ("abfs", "az") and connection else {}


class FsspecRemote:
    """A prefix in a bucket. A write is one request, so a name is there whole or not at all."""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        try:
            import fsspec

            # Listings are not kept: another machine may write at the same time.
            self._files = fsspec.filesystem(
                scheme, use_listings_cache=False, skip_instance_cache=True, **_options(scheme)
            )
        except ImportError as error:
            raise MissingExtra(error.name or f"what opens {scheme}://", extra="remote") from None
        if hasattr(self._files, "retries"):
            self._files.retries = 1
        self._scheme = scheme
        self.url = url.rstrip("/")
        self._root = rest.rstrip("/")
        if not self._root:
            raise UserError(f"{url}: expected a bucket, such as {scheme}://bucket/folder")

    def names(self, prefix: str) -> Iterator[str]:
        """As ``Remote``."""
        with _plain_errors():
            try:
                found = self._files.find(f"{self._root}/{prefix}")
            except FileNotFoundError:
                found = []
        yield from (path.removeprefix(self._root + "/") for path in found)

    def items(self, prefix: str) -> Iterator[Item]:
        """As ``Remote``."""
        with _plain_errors():
            try:
                found = self._files.find(f"{self._root}/{prefix}", detail=True)
            except FileNotFoundError:
                found = {}
        for path, info in found.items():
            yield Item(path.removeprefix(self._root + "/"), int(info["size"] or 0), _changed(info))

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As ``Remote``."""
        end = None if length is None else start + length
        with _plain_errors():
            try:
                return bytes(self._files.cat_file(f"{self._root}/{name}", start=start or None, end=end))
            except (OSError, ValueError) as error:
                if "satisfiable" in str(error):  # HTTP 416: there is nothing from there on
                    return b""
                raise

    def write(self, name: str, data: bytes) -> None:
        """As ``Remote``."""
        with _plain_errors():
            self._files.pipe_file(f"{self._root}/{name}", data)

    def renew(self, name: str) -> None:
        """As ``Remote``."""
        path = f"{self._root}/{name}"
        with _plain_errors():
            if self._scheme == "s3":  # a copy in its own place, so no byte travels
                self._files.cp_file(path, path, MetadataDirective="REPLACE")
            else:
                self._files.pipe_file(path, self._files.cat_file(path))

    def delete(self, name: str) -> None:
        """As ``Remote``."""
        with _plain_errors():
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return


def _changed(info: dict[str, Any]) -> float:
    """When an object was last written, by its service; times are whole seconds, so at the end of that one. What says
    no time is young."""
    names = ("LastModified", "last_modified", "mtime", "updated")
    moment = next((info[name] for name in names if info.get(name)), datetime.now().astimezone())
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return float(moment.timestamp()) + 1


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Whatever a service's library raises, as the errors that ``Remote`` promises."""
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:  # each library has its own tree
        if "credentials" in type(error).__name__.lower():
            raise PermissionError(f"{error} (set the service's environment variables)") from error
        raise OSError(f"{type(error).__name__}: {error}") from error

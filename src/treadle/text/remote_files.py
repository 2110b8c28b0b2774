"""Files behind an address: objects in a bucket, pages of a server, by fsspec. They stream; nothing is kept here.

Keys come from each service's own environment variables, never from the address.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from treadle.core.digest import blake3_bytes
from treadle.core.errors import MissingExtra, UserError

SCHEMES = ("s3", "gs", "gcs", "abfs", "az", "http", "https")
_BUFFER = 1 << 20
_SECONDS_TO_CONNECT = 10
_SECONDS_OF_SILENCE = 60
# Under what names file systems give what changes with the contents, the best first.
_TELLING = ("ETag", "etag", "md5Hash", "crc32c", "Content-MD5", "LastModified", "Last-Modified", "mtime", "updated")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One of them; ``locator`` is its address. As ``found_files.FoundFile``."""

    files: Any
    name: str
    locator: str
    bytes: int

    def open(self) -> BinaryIO:
        """A stream of it; ``OSError`` for whatever goes wrong, then and later."""
        try:
            opened = self.files.open(self.name, "rb")
        except Exception as error:  # each library has its own tree
            raise OSError(_told(error)) from None
        return cast(BinaryIO, io.BufferedReader(_Told(opened), _BUFFER))

    def size(self) -> int:
        """In bytes, as far as the server says; 0 when it does not."""
        return self.bytes

    def digest(self) -> str:
        """What changes with its contents: ETag or time as the server gives them now; where it gives none, its bytes."""
        try:
            facts = self.files.info(self.name)
        except Exception as error:
            raise UserError(f"files: {self.locator} cannot be asked for: {_told(error)}") from None
        told = next((str(facts[name]) for name in _TELLING if facts.get(name)), None)
        if told is not None:
            return f"{facts.get('size')} {told}"
        with self.open() as file:
            return blake3_bytes(file.read())


def is_remote(path: str) -> bool:
    """Whether a path is an address."""
    return "://" in path


def find(url: str, most: int) -> list[RemoteFile]:
    """What an address names, sorted: one file, or, in a bucket, what a glob matches.

    ``UserError`` when that is nothing, or more than ``most``, for keys in the address, and for a scheme nobody opens.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise UserError(f"files: nobody opens {scheme}://; expected one of {', '.join(SCHEMES)}")
    if "@" in rest.partition("/")[0]:
        keys = "fetch the file, and give its path" if "http" in scheme else "set the service's environment variables"
        raise UserError(f"files: an address with a key in it is refused; {keys}")
    files = _file_system(scheme)
    web = scheme in ("http", "https")
    try:
        if web or not any(sign in rest for sign in "*?["):
            name = url if web else rest
            found = {name: files.info(name)}
        else:
            found = {name: facts for name, facts in files.glob(rest, detail=True).items() if facts["type"] == "file"}
    except FileNotFoundError:
        found = {}
    except Exception as error:
        raise UserError(f"files: {url} cannot be asked for: {_told(error)}") from None
    if not found:
        raise UserError(f"files: nothing is at {url}; expected a file, or in a bucket a glob such as {scheme}://b/**")
    if len(found) > most:
        raise UserError(f"files: {url} names more than {most} files; raise max_files")
    made = (
        RemoteFile(files, name, name if web else f"{scheme}://{name}", int(facts.get("size") or 0))
        for name, facts in found.items()
    )
    return sorted(made, key=lambda file: file.locator)


def _file_system(scheme: str) -> Any:
    try:
        import fsspec

        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            import aiohttp

            limit = aiohttp.ClientTimeout(total=None, sock_connect=_SECONDS_TO_CONNECT, sock_read=_SECONDS_OF_SILENCE)
            options["client_kwargs"] = {"timeout": limit}
        return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError as error:
        raise MissingExtra(error.name or f"what opens {scheme}://", extra="remote") from None


class _Told(io.RawIOBase):
    """A remote stream whose errors are all ``OSError``."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._seekable = (
            bool(getattr(file, "size", None)) and file.seekable() and type(file).__name__ != "HTTPStreamingFile"
        )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:
            raise OSError(_told(error)) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _told(error: Exception) -> str:
    """The kind of an error; its words may quote the address with what signs it."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if "credential" in type(error).__name__.lower() or isinstance(error, PermissionError):
        return "no access; set the service's environment variables"
    return f"the server or the connection failed ({type(error).__name__})"

"""ZIP and tar: their members one after the other, as streams. Nothing is written anywhere, no link is followed, and a
member whose name leads out of the archive is refused.
"""

from __future__ import annotations

import copy
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Self, cast

from treadle.text.readers.compression import BrokenStreamError, Budget, Unpacked

_LARGEST_HEADER = 1 << 20  # bytes of a name or of extended headers
_LARGEST_DIRECTORY = 1 << 26  # bytes of a ZIP's directory, which is read whole
_TAIL = 65_557  # where a ZIP says at its end where its directory is
_END = struct.Struct("<4s4H2LH")
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError, EOFError, OSError, NotImplementedError,
           RuntimeError, ValueError, OverflowError, struct.error, KeyError, IndexError)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive; its stream is good until the next member is asked for."""

    name: str
    stream: BinaryIO
    size: int


@dataclass(frozen=True, slots=True)
class BadMember:
    """A member that is not read (``name`` empty: the rest of the archive), where, and why."""

    name: str
    offset: int
    reason: str


def zip_kind(names: frozenset[str]) -> str:
    """What a ZIP with these members is: ``docx``, ``epub``, another office file by its name, or ``zip``."""
    if "word/document.xml" in names:
        return "docx"
    if "META-INF/container.xml" in names and "mimetype" in names:
        return "epub"
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        return "XLSX"
    if "ppt/presentation.xml" in names:
        return "PPTX"
    return "OpenDocument" if {"mimetype", "content.xml", "META-INF/manifest.xml"} <= names else "zip"


def open_zip(stream: BinaryIO) -> zipfile.ZipFile | str:
    """The directory of a ZIP, or why it cannot be read."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        return "not a ZIP archive that can be read: its end is missing"
    if min(_END.unpack_from(tail, at)[5], size) > _LARGEST_DIRECTORY:
        return f"its directory is larger than {_LARGEST_DIRECTORY} bytes"
    try:
        return zipfile.ZipFile(stream)
    except _BROKEN:
        return "not a ZIP archive that can be read: its directory is broken"


def zip_members(archive: zipfile.ZipFile, budget: Budget) -> Iterator[Member | BadMember]:
    """Members in the order of the directory; ``TooMuchError`` when the budget is spent."""
    for info in archive.infolist():
        if info.is_dir():
            continue
        budget.member()
        reason = _refused(info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            reason = "a link, which is not followed"
        elif info.flag_bits & 1:
            reason = "encrypted: it needs a password"
        elif info.compress_type == zipfile.ZIP_LZMA:  # it unpacks without bounds
            reason = "packed with LZMA, which is not read in a ZIP"
        if reason:
            yield BadMember(info.filename, info.header_offset, reason)
            continue
        try:
            file = _open_member(archive, info, budget)
        except _BROKEN as error:
            yield BadMember(info.filename, info.header_offset, _told(error))
            continue
        with file:
            yield Member(info.filename, cast(BinaryIO, io.BufferedReader(file)), info.file_size)


def tar_members(stream: BinaryIO, budget: Budget) -> Iterator[Member | BadMember]:
    """Members in the order they lie; ``TooMuchError`` when the budget is spent. That the archive stops without its end
    mark, or with a header that is none, is told as a ``BadMember`` without a name.
    """

    class Header(_Header):
        last: str = ""

    try:
        archive = tarfile.open(fileobj=stream, mode="r|", tarinfo=Header, bufsize=1 << 16)  # noqa: SIM115
    except _TAR_BROKEN as error:
        yield BadMember("", 0, f"not a tar archive that can be read: {_tar_told(error)}")
        return
    while True:
        offset = archive.offset
        try:
            info = archive.next()
        except _TAR_BROKEN as error:
            yield BadMember("", offset, f"the rest cannot be read: {_tar_told(error)}")
            return
        if info is None:
            if Header.last not in ("", "EOFHeaderError"):
                yield BadMember("", offset, f"the rest cannot be read: {_HEADERS.get(Header.last, 'a broken header')}")
            return
        archive.members = []  # type: ignore[attr-defined]  # it remembers every member otherwise
        if not info.isdir():
            budget.member()
            yield _tar_member(archive, info)


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member | BadMember:
    reason = _refused(info.name)
    if info.issym() or info.islnk():
        reason = "a link, which is not followed"
    elif not info.isreg():
        reason = "neither a file nor a folder"
    file = None if reason else archive.extractfile(info)
    if file is None:
        return BadMember(info.name, info.offset, reason or "cannot be opened")
    return Member(info.name, cast(BinaryIO, io.BufferedReader(_Told(file))), info.size)


class _Header(tarfile.TarInfo):
    """Remembers why the last header was none (tarfile stops there as if the archive had ended), and refuses headers
    that would fill the memory or lead backwards.
    """

    last = ""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
            if info.size < 0 or (info.type in _EXTENDED and info.size > _LARGEST_HEADER):
                raise tarfile.InvalidHeaderError("size")  # type: ignore[attr-defined]
        except tarfile.HeaderError as error:
            cls.last = type(error).__name__
            raise
        cls.last = ""
        return info


_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
             tarfile.GNUTYPE_LONGLINK)  # fmt: skip
_TAR_BROKEN = (tarfile.TarError, ValueError, OverflowError, EOFError, OSError, KeyError, IndexError, struct.error,
               RecursionError, MemoryError)  # fmt: skip
_HEADERS = {"EmptyHeaderError": "it ends without its end mark, and may be cut off",
            "TruncatedHeaderError": "it ends within a header"}  # fmt: skip


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> io.RawIOBase:
    """A member, unpacked as far as it is read. zipfile does that with deflate only: of bzip2 it unpacks whatever lies
    in a block at once, so that a kilobyte fills the memory."""
    if info.compress_type != zipfile.ZIP_BZIP2:
        return _Spent(archive.open(info), budget)
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # of what is unpacked; the stream has its own
    return _Spent(Unpacked(cast(BinaryIO, archive.open(packed)), "bz2", budget), None)


class _Spent(io.RawIOBase):
    """A member as it is unpacked; each byte is spent, unless there is no budget because the file itself spends."""

    def __init__(self, file: Any, budget: Budget | None) -> None:
        self._file = file
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except _BROKEN as error:
            raise OSError(_told(error)) from None
        if self._budget is not None:
            self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Told(io.RawIOBase):
    """A member of a tar; that the archive breaks off in it is an ``OSError``."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except tarfile.TarError:
            raise OSError("the archive breaks off here") from None
        buffer[: len(data)] = data
        return len(data)


def _refused(name: str) -> str:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or (len(plain) > 1 and plain[1] == ":"):
        return "its name is absolute"
    if ".." in plain.split("/"):
        return "its name leads out of the archive (..)"
    return "its name holds a NUL" if "\x00" in name else ""


def _told(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return "packed in a way that is not supported"
    if "CRC" in str(error):
        return "its checksum is wrong"
    if "Overlap" in str(error):
        return "it lies over another member"
    return "cannot be unpacked: it is broken"


def _tar_told(error: BaseException) -> str:
    if isinstance(error, BrokenStreamError):
        return str(error)
    text = str(error)
    return "it is cut off" if "end of" in text or "empty" in text else "a broken header"

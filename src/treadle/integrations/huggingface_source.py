"""The source ``huggingface``: data sets of the hub, or in a folder, by the ``datasets`` library.

What is read is one commit of the hub's. No data set's own code is run: the library's versions from 4 on cannot.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from blake3 import blake3

from treadle.core.digest import blake3_file
from treadle.core.errors import MissingExtra, UserError, nearest
from treadle.core.secrets import is_reference, resolve
from treadle.core.settings import Moment, Positive
from treadle.text.accounting import Quarantined
from treadle.text.document import Document, Origin
from treadle.text.row_mapping import Fields, RowMapping, UnusableRowError
from treadle.text.rows import BadRow, Limits
from treadle.text.source import SourceContext
from treadle.text.table_rows import table_row

SOURCE = "huggingface"
_SAVED = ("dataset_dict.json", "dataset_info.json", "state.json")  # what `save_to_disk` writes
_NO_TEXT = ("Image", "Audio", "Video", "Pdf")  # columns that are left out
_WHOLLY_HASHED = 1 << 28  # bytes; of a larger file size and time count


class HuggingFace:
    """Source ``huggingface``. ``fields`` is that of ``files``.

    ``path`` is a folder (what ``save_to_disk`` wrote, or data files) or an id of the hub. ``split`` is one of its
    splits, by default all in the order of their names; ``revision`` a commit, branch or tag. ``token`` is
    ``${env:NAME}``.
    Columns of images, sound and video are left out.
    """

    version = 1
    instead: ClassVar[Mapping[str, str]] = {"path": "take it out, and write `token: ${env:NAME}` beside it"}

    def __init__(
        self,
        *,
        path: str,
        context: SourceContext,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        fields: Fields | None = None,
        license: str | None = None,  # noqa: A002 (the file's word)
        personal_data: bool = False,
        origin: Origin = "human",
        purpose: str | None = None,
        retain_until: Moment | None = None,
        max_row_bytes: Positive = 16_000_000,
        max_depth: Positive = 64,
    ) -> None:
        if token is not None and not is_reference(token):
            raise UserError(f"{SOURCE}: a token does not stand in the file; write `token: ${{env:NAME}}`")
        self._path, self._config, self._split, self._token = path, config, split, token
        self._revision = revision
        self._folder = context.project / Path(path).expanduser()
        self._mapping = RowMapping(fields or Fields(), context.keyed, personal_data, SOURCE)
        self._common = {"license": license, "origin": origin, "purpose": purpose, "retain_until": retain_until}
        self._limits = Limits(max_row_bytes, max_depth)

    def fingerprint(self) -> str:
        """A digest over the folder's files, or the commit that the hub has now."""
        if not self._folder.is_dir():
            return f"commit {self._commit()}"
        hasher = blake3()
        for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
            status = path.stat()
            large = status.st_size > _WHOLLY_HASHED
            digest = f"{status.st_size} {status.st_mtime_ns}" if large else blake3_file(path)
            hasher.update(f"{path.relative_to(self._folder).as_posix()}\0{digest}\n".encode("utf-8", "surrogatepass"))
        return f"files b3:{hasher.hexdigest()}"

    def read(self, cursor: str | None = None) -> Iterator[Document | Quarantined]:
        """Every row of each split; with ``cursor``, a document's locator, those after it."""
        splits = self._opened()
        if self._split is not None and self._split not in splits:
            raise UserError(f"{SOURCE}: {self._path} has no split {self._split!r};{nearest(self._split, list(splits))}")
        waiting = cursor is not None
        for name in [self._split] if self._split is not None else sorted(splits):
            place = f"{self._path}/{name}"
            for number, row in enumerate(_rows(splits[name], place), start=1):
                piece = self._piece(number, row, place)
                if not waiting:
                    yield piece
                else:
                    waiting = cursor not in (f"{place}:{number}", getattr(piece, "locator", None))
        if waiting:
            raise UserError(f"{SOURCE}: {self._path} has no document {cursor!r} to go on from; read it from the start")
        if cursor is None:
            self._mapping.check_time()

    def _piece(self, number: int, row: dict[str, Any], place: str) -> Document | Quarantined:
        made = table_row(number, row, self._limits)
        if isinstance(made, BadRow):
            return Quarantined(f"{SOURCE}:{place}", made.offset, made.reason)
        try:
            return self._mapping.document(made, SOURCE, place, self._common)
        except UnusableRowError as error:
            return Quarantined(f"{SOURCE}:{place}", made.offset, f"row {number}: {error}")

    def _opened(self) -> dict[str, Any]:
        """The splits by name, each streaming."""
        try:
            import datasets
        except ImportError:
            raise MissingExtra("datasets", extra="huggingface") from None
        try:
            if self._folder.is_dir() and any((self._folder / name).is_file() for name in _SAVED):
                self._check_within(_saved_files(self._folder))
                found = datasets.load_from_disk(str(self._folder))
                return dict(found) if isinstance(found, dict) else {self._split or "train": found}
            local = self._folder.is_dir()
            settings = {} if local else {"revision": self._commit(), "token": self._secret()}
            place = str(self._folder) if local else self._path
            builder = datasets.load_dataset_builder(place, self._config, **settings)
            self._check_within(name for names in (builder.config.data_files or {}).values() for name in names)
            return dict(builder.as_streaming_dataset())
        except UserError:
            raise
        except Exception as error:  # each of the library's readers has its own tree
            told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UserError(f"{SOURCE}: {self._path} cannot be opened: {told}; check path, config and split") from None

    def _check_within(self, names: Iterable[Any]) -> None:
        """A data set's own description may name files anywhere; only its own are read."""
        folder = self._folder.resolve()  # as the library does
        base = f"{folder}{os.sep}" if self._folder.is_dir() else f"hf://datasets/{self._path}@"
        for name in names:
            path = str(name).rpartition("::")[2]  # of what lies in an archive, the archive
            path = path if "://" in path else os.path.normpath(folder / path)
            if not path.startswith(base) or ".." in path.split("/"):
                raise UserError(
                    f"{SOURCE}: {self._path} names the file {str(name)[:200]}, which is not in it; take it out"
                )

    def _commit(self) -> str:
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise MissingExtra("huggingface_hub", extra="huggingface") from None
        try:
            found = HfApi(token=self._secret()).dataset_info(self._path, revision=self._revision, timeout=30)
        except Exception as error:  # its own errors, those of HTTP, and of a network that is not there
            told = f"the hub does not answer as it should ({type(error).__name__})"
            raise UserError(f"{SOURCE}: no folder {self._folder}, and {told}; check path, token and network") from None
        return str(found.sha)

    def _secret(self) -> str | None:
        return resolve(self._token) if self._token else None


def _rows(split: Any, place: str) -> Iterator[dict[str, Any]]:
    """Rows without the columns that hold no text."""
    features = split.features or {}
    left_out = [name for name, kind in features.items() if type(kind).__name__ in _NO_TEXT]
    rows, number = iter(split.remove_columns(left_out) if left_out else split), 0
    while True:
        try:
            row = next(rows, None)
        except Exception as error:  # those of Arrow and of each reader; what they say quotes the data
            told = f"{place} cannot be read beyond row {number} ({type(error).__name__})"
            raise UserError(f"{SOURCE}: {told}; check the file and its columns") from None
        if row is None:
            return
        number += 1
        yield row


def _saved_files(folder: Path) -> Iterator[str]:
    """The files that what ``save_to_disk`` wrote says it consists of."""
    if (folder / _SAVED[0]).is_file() and not (folder / _SAVED[2]).is_file():
        for split in json.loads((folder / _SAVED[0]).read_bytes())["splits"]:
            yield from (f"{split}/{name}" for name in (".", *_saved_files(folder / split)))
    elif (folder / _SAVED[2]).is_file():
        for each in json.loads((folder / _SAVED[2]).read_bytes())["_data_files"]:
            yield each["filename"]

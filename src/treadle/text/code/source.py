"""The source ``git``: the files of a repository at one commit.

What a person wrote there becomes documents; what is generated, vendored, binary, data, a link, a submodule or a pointer
of Git LFS is dropped under a rule that says so, so that all files are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.core.settings import Moment, Positive
from treadle.text.accounting import Quarantined
from treadle.text.code.languages import KINDS, Kind, known, language_of
from treadle.text.code.licenses import Licenses, in_header
from treadle.text.code.marks import Attributes, generated, lfs_size, vendored
from treadle.text.code.place import Place, find_commit
from treadle.text.code.repository import Change, Entry, Repository
from treadle.text.document import Document
from treadle.text.outcomes import Origin, Outcome, Outcomes, Pending, in_order
from treadle.text.readers import sniff
from treadle.text.readers.catalog import versions
from treadle.text.readers.piece import Documents
from treadle.text.readers.workers import Workers
from treadle.text.source import SourceContext
from treadle.text.units import LOOSE, Known, Unit, nothing_known, without_units

SOURCE = "git"
_READ = ("docx", "epub", "html", "ipynb", "pdf", "tex")  # by their readers; everything else is text as it lies
_LARGEST_RULES = 1_000_000  # bytes of a .gitattributes or a license
_BINARY_WITHIN = 8000  # bytes in which a NUL makes a file binary, as Git has it
_LINKS = {"120000": ("git.link", "a symbolic link"), "160000": ("git.submodule", "a submodule, which is not followed")}


class Git:
    """Source ``git``: the files of a repository at ``ref`` (a commit, branch or tag). ``fields`` of a document:
    ``path``, ``language``, ``commit``, ``author`` (a keyed digest), ``license_from``.

    ``url`` is a folder or an address that Git can fetch; ``token`` is for https, as ``${env:NAME}``. ``only`` and
    ``ignore`` are patterns of paths, ``kinds`` those of languages. ``license`` holds where the repository names none.
    ``times: file`` takes time and author from the commit that last changed a file, ``commit`` those of ``ref``, which
    needs no history. ``largest`` are bytes of a file, ``largest_fetch`` of all that is fetched.
    """

    version = 2
    instead: ClassVar[Mapping[str, str]] = {"url": "take it out, and write `token: ${env:NAME}` beside it"}

    def __init__(
        self,
        *,
        url: str,
        context: SourceContext,
        ref: str = "HEAD",
        token: str | None = None,
        only: tuple[str, ...] = ("*",),
        ignore: tuple[str, ...] = (),
        kinds: tuple[Kind, ...] = ("programming", "markup", "prose"),
        generated: Literal["drop", "keep"] = "drop",
        vendored: Literal["drop", "keep"] = "drop",
        license: str | None = None,  # noqa: A002 (the file's word)
        times: Literal["file", "commit"] = "file",
        purpose: str | None = None,
        retain_until: Moment | None = None,
        reading: Documents | None = None,
        largest: Positive = 1_000_000,
        largest_fetch: Positive = 10_000_000_000,
        seconds: float = 3600.0,
    ) -> None:
        if token is not None and not url.startswith("https://"):
            raise UserError("git: a token is sent over https only; give an address that begins with https://")
        if token is not None and not token.startswith("${env:"):
            raise UserError("git: a token does not stand in the file; write `token: ${env:NAME}`")
        self._place = Place(url, ref, token, seconds, largest_fetch)
        self._context = context
        self._only, self._ignore, self._kinds = only, ignore, kinds
        self._keeps = {"generated": generated == "keep", "vendored": vendored == "keep"}
        self._license, self._history, self._largest = license, times == "file", largest
        self._common = {"purpose": purpose, "retain_until": retain_until}
        self._documents = reading or Documents()

    def fingerprint(self) -> str:
        """The commit's id, and the versions of what reads documents."""
        return f"commit {find_commit(self._place, self._context.project)} {versions()}"

    def read(self, cursor: str | None = None) -> Iterator[Outcome]:
        """Every file in the order of the paths; with ``cursor``, a document's locator, those after it."""
        return without_units(self._pieces(nothing_known, cursor))

    def read_changed(self, known: Known) -> Iterator[Outcome | Unit]:
        """The same by files; one is known by its object and by what history, attributes and licenses say of it."""
        return self._pieces(known, None)

    def _pieces(self, known: Known, cursor: str | None) -> Iterator[Outcome | Unit]:
        workers = Workers(self._documents)
        try:
            with Repository(self._place, self._context.project, history=self._history) as repository:
                yield from in_order(self._all(repository, workers, known, cursor))
        finally:
            workers.close()

    def _all(
        self, repository: Repository, workers: Workers, known: Known, cursor: str | None
    ) -> Iterator[Outcome | Pending | Unit]:
        entries = repository.entries()
        made = Outcomes(self._common, self._context.keyed, workers, SOURCE)
        tree = _Tree(repository, entries, self._history)
        name = self._place.location.removesuffix("/").removesuffix(".git")
        if not self._place.remote:
            name = Path(name).name or self._context.project.name
        for entry in entries:
            locator = f"{name}!/{_shown(entry.path)}"
            if cursor is not None and locator <= cursor:
                continue
            mark = tree.mark(entry)
            if known(locator, mark):
                yield Unit(locator, mark, known=True)
                continue
            piece = self._file(entry, locator, tree, made)
            yield LOOSE if isinstance(piece, Quarantined) else Unit(locator, mark)  # what is lost may come back
            yield piece

    def _file(self, entry: Entry, locator: str, tree: _Tree, made: Outcomes) -> Outcome | Pending:
        attributes = tree.attributes.of(entry.path)
        refused = self._by_name(entry, attributes)
        if refused:
            return made.dropped(locator, *refused)
        data = tree.repository.blob(entry.object)
        if data is None:
            return Quarantined(f"{SOURCE}:{locator}", 0, "the repository has lost this file, or it is damaged")
        refused = self._by_content(entry.path, data, attributes)
        if refused:
            return made.dropped(locator, *refused)
        outcome = self._read(entry.path, locator, data, made)
        marks = self._marks(entry.path, data, attributes, tree)
        if isinstance(outcome, Pending):
            inner: Callable[..., Iterator[Outcome]] = outcome.outcomes
            return replace(outcome, outcomes=lambda pieces: (_marked(each, marks) for each in inner(pieces)))
        return _marked(outcome, marks)

    def _by_name(self, entry: Entry, attributes: Mapping[str, str | bool]) -> tuple[str, str] | None:
        """The rule by which a path is left out unread, and why."""
        if entry.mode in _LINKS:
            return _LINKS[entry.mode]
        if not _matches(entry.path, self._only) or _matches(entry.path, self._ignore):
            return "git.ignored", "`only` or `ignore` leaves it out"
        for mark, by_name in (("vendored", vendored(entry.path)), ("generated", False)):
            given = attributes.get(f"linguist-{mark}")
            if not self._keeps[mark] and (bool(given) if given is not None else by_name):
                return f"git.{mark}", ".gitattributes says so" if given else "where it lies or its name says so"
        if entry.size > self._largest:
            return "git.large", f"{entry.size} bytes; `largest` is {self._largest}"
        return None

    def _by_content(self, path: str, data: bytes, attributes: Mapping[str, str | bool]) -> tuple[str, str] | None:
        size = lfs_size(data)
        if size is not None:
            return "git.lfs", f"the pointer to a file of {size} bytes in Git LFS, which is not fetched"
        if not data.strip():
            return "git.empty", "there is nothing in it"
        if not self._keeps["generated"] and attributes.get("linguist-generated") is None and generated(path, data):
            return "git.generated", "its name or its beginning says so"
        if _kind(path, data) not in _READ and (b"\0" in data[:_BINARY_WITHIN] or attributes.get("binary") is True):
            return "git.binary", "no text"
        language = _language(path, data, attributes)
        kind = KINDS.get(language or "")
        if kind is not None and kind not in self._kinds and _kind(path, data) not in _READ:
            return f"git.{kind}", f"{language}; `kinds` leaves it out"
        return None

    def _read(self, path: str, locator: str, data: bytes, made: Outcomes) -> Outcome | Pending:
        kind = _kind(path, data)
        if kind in _READ:
            return made.pending(kind, data, Origin(locator, f"{SOURCE}:{locator}"), {"format": kind})
        try:
            return made.text(locator, data, data.decode("utf-8-sig"), {})
        except UnicodeDecodeError:
            return made.pending("txt", data, Origin(locator, f"{SOURCE}:{locator}"), {})

    def _marks(self, path: str, data: bytes, attributes: Mapping[str, str | bool], tree: _Tree) -> dict[str, Any]:
        change = tree.changes.get(path) or tree.tip
        fields: dict[str, Any] = {"path": _shown(path), "commit": change.commit}
        language = _language(path, data, attributes)
        if language:
            fields["language"] = language
        if change.author:
            fields["author"] = self._context.keyed(change.author)
        for mark, found in (("generated", generated(path, data)), ("vendored", vendored(path))):
            given = attributes.get(f"linguist-{mark}")
            if bool(given) if given is not None else found:
                fields[mark] = True
        license_, where = in_header(data), "SPDX header"
        if license_ is None:
            license_, file = tree.licenses.of(path)
            where = file or ""
        if license_ is None:
            license_, where = self._license, "settings" if self._license else where
        if where:
            fields["license_from"] = where
        return {"license": license_, "time": change.time or None, "fields": fields}


class _Tree:
    """What holds for many files of a commit."""

    def __init__(self, repository: Repository, entries: list[Entry], history: bool) -> None:
        self.repository = repository
        self.tip: Change = repository.tip()
        self.changes = repository.changes({entry.path for entry in entries}) if history else {}
        self._entries = {entry.path: entry for entry in entries if entry.mode not in _LINKS}
        self.licenses = Licenses(self._entries, self._text)
        self.attributes = Attributes()
        rules = [path for path in self._entries if path.rpartition("/")[2] == ".gitattributes"]
        for path in sorted(rules, key=lambda path: (path.count("/"), path)):
            if not self.attributes.add(path.removesuffix(".gitattributes"), self._text(path) or ""):
                break

    def mark(self, entry: Entry) -> str:
        """What decides on a file's document, without reading the file."""
        change = self.changes.get(entry.path) or self.tip
        said = [entry.object, entry.mode, entry.size, change.commit, change.time, change.author]
        about = [*said, self.licenses.of(entry.path), dict(self.attributes.of(entry.path)), versions()]
        return blake3_bytes(canonical_json(about))

    def _text(self, path: str) -> str | None:
        entry = self._entries[path]
        data = self.repository.blob(entry.object) if 0 <= entry.size <= _LARGEST_RULES else None
        return None if data is None else data.decode("utf-8", "replace")


def _marked(outcome: Outcome, marks: Mapping[str, Any]) -> Outcome:
    if not isinstance(outcome, Document):
        return outcome
    fields = {**outcome.fields, **marks["fields"]}
    inner = outcome.fields.get("language")
    if inner is not None and outcome.fields.get("format") != "ipynb":
        fields["text_language"] = inner  # a page's own, which is no programming language
    return replace(outcome, license=marks["license"], time=marks["time"], fields=fields)


def _kind(path: str, data: bytes) -> str:
    """The reader a file would have; of what is no document, nothing that matters."""
    kind = sniff.sniff(path, data[: sniff.HEAD])
    return kind.name if kind.promised is None else ""


def _language(path: str, data: bytes, attributes: Mapping[str, str | bool]) -> str | None:
    given = attributes.get("linguist-language")
    if isinstance(given, str):
        return known(given) or given[:60]
    return language_of(path, data[: sniff.HEAD])


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _shown(path: str) -> str:
    """A path as a locator shows it, without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in path)

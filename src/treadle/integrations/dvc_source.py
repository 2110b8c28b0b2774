"""The source ``dvc``: rows and texts that a DVC repository tracks, out of its cache or a remote that is a folder."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.core.settings import Moment
from treadle.integrations.dvc_repository import Repository, Tracked
from treadle.text.document import Origin
from treadle.text.files_source import Files
from treadle.text.found_files import FoundFile
from treadle.text.row_mapping import Fields
from treadle.text.source import SourceContext


class Dvc(Files):
    """Source ``dvc``: as ``files``, out of a DVC repository.

    ``path`` is a ``.dvc`` file, a ``dvc.lock``, a tracked path or a whole repository; ``only`` a pattern that paths in
    the repository have to match. DVC need not be installed; each file's MD5 is checked before it is read.
    """

    version = 4

    def __init__(
        self,
        *,
        path: str,
        context: SourceContext,
        only: str = "*",
        license: str | None = None,  # noqa: A002 (the file's word)
        fields: Fields | None = None,
        personal_data: bool = False,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        origin: Origin = "human",
        purpose: str | None = None,
        retain_until: Moment | None = None,
    ) -> None:
        super().__init__(
            path=path,
            context=context,
            license=license,
            fields=fields,
            personal_data=personal_data,
            encoding=encoding,
            delimiter=delimiter,
            origin=origin,
            purpose=purpose,
            retain_until=retain_until,
        )
        self._place = context.project / Path(path).expanduser()
        self._only = only

    def fingerprint(self) -> str:
        """A digest over paths and MD5s, as the pointers name them; nothing else is read."""
        tracked = self._tracked(Repository(self._place))
        return f"{len(tracked)} files {blake3_bytes(canonical_json([[each.path, each.md5] for each in tracked]))}"

    def files(self) -> list[FoundFile]:
        """The files, each verified."""
        repository = Repository(self._place)
        return [FoundFile(repository.locate(each), each.path) for each in self._tracked(repository)]

    def _tracked(self, repository: Repository) -> list[Tracked]:
        found = [each for each in repository.files(self._place) if fnmatch(each.path, self._only)]
        if not found:
            raise UserError(f"dvc: no tracked file in {self._place} matches only: {self._only!r}")
        return found

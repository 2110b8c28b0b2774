"""``treadle import dvc``: what a DVC repository tracks becomes a corpus, with a version."""

from __future__ import annotations

from typing import Any

from treadle.core.driver import Driver
from treadle.importing.import_run import import_run
from treadle.importing.outside import Brought
from treadle.project import Project
from treadle.stages.collect import CollectSettings, SourceSettings, collect
from treadle.text.row_mapping import Fields


def import_dvc(
    project: Project,
    place: str,
    *,
    only: str = "*",
    license: str | None = None,  # noqa: A002 (the file's word)
    fields: Fields | None = None,
    personal_data: bool = False,
) -> Brought:
    """A dataset that DVC tracks (a .dvc file, a dvc.lock, a tracked path or a repository) becomes a corpus version.

    DVC need not be installed. Each file is taken from the cache, from a remote that is a folder, or from the work
    tree, and its MD5 is checked. The settings (--with) are those of the source `dvc` in collect.sources, which reads
    the same for every turn.

    \b
    Example:
      treadle import dvc ../data-repo/reviews.dvc --with license=CC-BY-4.0
    """
    given: dict[str, Any] = {"only": only, "license": license, "fields": fields, "personal_data": personal_data}
    if fields is not None:
        given["fields"] = fields.model_dump(exclude_none=True)
    source = SourceSettings(type="dvc", path=place, **{key: value for key, value in given.items() if value})
    record = project.record
    driver = Driver(record.runs, project.folder, seed=project.file.seed)
    corpus = collect(driver, CollectSettings(sources=[source]), record.erasures.suppression())
    done = import_run(project, "import.dvc", lambda _: {"corpus": corpus}, inputs={"corpus": corpus.digest})
    version = record.versions.register("corpus", corpus.digest, done.run)
    accounting = corpus.accounting()
    counted = accounting.to_json()
    told = {"version": version.ref, "digest": corpus.digest, **{key: counted[key] for key in _SHOWN}}
    lines = (
        f"{version.ref}  {corpus.digest[:11]}",
        accounting.line(),
        f"to read it in every turn, add to collect.sources: {{type: dvc, path: {place}}}",
    )
    return Brought(done.run, told, lines)


_SHOWN = ("in", "kept", "dropped", "quarantined")

"""``treadle explore``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.errors import UserError
from treadle.project import open_project
from treadle.record.record import Record
from treadle.text.exploration import Subject, compare, find_subject, page_of, touched_by
from treadle.text.exploration import explore as explored
from treadle.text.explore import Material
from treadle.text.rules import rule_info

_SHOWN = 40  # documents of a rule, for a person


@click.command()
@click.argument("ref", required=False)
@click.argument("other", required=False)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="Where the page goes.  [default: explore.html]"
)
@click.option("--rule", metavar="NAME", help="List the documents that a rule touched, instead of a page.")
@json_option
def explore(ref: str | None, other: str | None, out: Path | None, rule: str | None, as_json: bool) -> None:
    """One page that shows a corpus or a dataset: its texts, what was dropped and why. With OTHER, what changed.

    REF is dataset@v1 or b3:...; without it, the project's last dataset. The page is one file that loads nothing.

    \b
    Example:
      treadle explore
      treadle explore dataset@v1 dataset@v2 --out changes.html
      treadle explore dataset@v1 --rule redact.email --json
    """
    if rule is not None and (other is not None or out is not None):
        raise UserError("explore --rule lists the documents of one version: give one REF and no --out")
    with open_project(here()) as project:
        if rule is not None:
            _list(project.record, ref, rule, as_json)
            return
        if ref is not None and other is not None:
            subject, material = compare(project.record, ref, other)
        else:
            subject, material = explored(project.record, ref)
        page = page_of(material).encode("utf-8", "replace")
        target = here() / (out or Path("explore.html"))
        _write(target, page)
    if as_json:
        emit(_public(subject, material, target, len(page)))
        return
    say(f"{subject.ref}: {material.subject.documents:,} documents, {len(page) / 1e6:.1f} MB")
    say(str(target))


def _list(record: Record, ref: str | None, rule: str, as_json: bool) -> None:
    subject = find_subject(record, ref)
    hits, info = touched_by(subject, rule), rule_info(rule)
    if as_json:
        documents = [asdict(hit) for hit in hits]
        emit({"ref": subject.ref, "digest": subject.digest, "rule": asdict(info), "documents": documents})
        return
    say(f"{rule}: {info.what} Source: {info.source}{f' {info.url}' if info.url else ''}")
    for hit in hits[:_SHOWN]:
        say(f"  {hit.fate:<8} {hit.document[:20]} {hit.source} {hit.locator}")
    if len(hits) > _SHOWN:
        say(f"  ... and {len(hits) - _SHOWN:,} more; --json has all")
    say(f"{len(hits):,} documents; treadle lineage {hits[0].document} follows one")


def _write(target: Path, page: bytes) -> None:
    """All of it or nothing."""
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_bytes(page)
        partial.replace(target)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"--out {target}: {error.strerror}; name a file in a folder that can be written to") from None
    finally:
        partial.unlink(missing_ok=True)


def _public(subject: Subject, material: Material, target: Path, size: int) -> dict[str, Any]:
    return {
        "ref": subject.ref,
        "digest": subject.digest,
        "out": str(target),
        "bytes": size,
        "documents": material.subject.documents,
        "stages": {
            name: {part: account[part] for part in ("in", "kept", "dropped", "notes") if part in account}
            for name, account in material.stages.items()
        },
        "compared": asdict(material.comparison) if material.comparison else None,
    }

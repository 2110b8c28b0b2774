"""From a line of the report to the rule, its source and the documents; and an erasure by a number in their texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from small_project import Project

ROW = {
    "messages": [
        {"role": "user", "content": "Whom do I ask about my attic fan?"},
        {"role": "assistant", "content": "Call the owner of the shop at +1 (212) 555-0123, or write to a.b@shop.test."},
    ],
    "customer": "customer-somebody",
    "time": "2026-01-09",
}


def test_a_line_of_the_report_leads_to_documents_and_an_erasure_follows_the_number(
    fresh: Callable[[], Project],
) -> None:
    project = fresh()
    project.edit("deduplicate, redact]", "deduplicate, {redact: {kinds: {phone: redact, email: replace}}}]")
    with project.data.open("a") as file:
        file.write(json.dumps(ROW) + "\n")
    project.json("run", "--until", "prepare")
    (report,) = [path.read_text() for path in (project.folder / ".treadle" / "objects").rglob("*") if is_page(path)]
    assert "--rule redact.phone" in report
    assert "ITU-T E.164" in report
    assert "555-0123" not in report
    facts = project.json("explore", "--rule", "redact.phone")
    assert facts["rule"]["source"] == "ITU-T E.164"
    (document,) = facts["documents"]
    assert project.json("explore", "--rule", "redact.email")["documents"] == [document]
    below = project.json("lineage", "--down", document["document"])
    assert {"corpus", "dataset"} <= {node["kind"] for node in below["nodes"]}
    assert document["locator"] in project.call("explore", "--rule", "redact.phone").stdout
    assert "did you mean 'redact.phone'" in project.call("explore", "--rule", "redact.phon", check=2).stderr
    for somebody, documents in (("212.555.0199", 0), ("A.B@Shop.test", 1), ("212.555.0123", 1)):
        assert project.json("forget", somebody, "--dry-run")["documents"] == documents
    found = project.json("forget", "212.555.0123", "--no-rebuild")
    assert (found["documents"], found["done"]) == (1, True)
    assert project.json("collect")["dropped"]["suppress.erased"] == 1


def is_page(path: Path) -> bool:
    """Whether an object is the report."""
    return path.is_file() and path.read_bytes()[:15] == b"<!doctype html>"

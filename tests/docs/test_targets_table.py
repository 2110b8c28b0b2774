"""The table of what ran where: one row a target, and `treadle doctor` says the same."""

from __future__ import annotations

import json
from pathlib import Path

import command
from treadle.core.plugins import names
from treadle.doctor import TARGETS, TARGETS_NOT_EXERCISED, examine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "targets"


def rows() -> dict[str, list[str]]:
    """The table's cells by target."""
    page = (ROOT / "docs" / "stages" / "deploy.md").read_text()
    table = page.partition("<!-- generated: targets -->\n")[2].partition("<!-- end -->")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_table_and_the_doctor_agree() -> None:
    table = rows()
    assert sorted(table) == names(TARGETS)
    unknown = set(names(TARGETS)) - set(TARGETS_NOT_EXERCISED)
    assert not unknown, f"say in treadle/doctor.py what of {unknown} was not exercised"
    said = {finding.part: finding for finding in examine()}
    for name, cells in table.items():
        assert said[f"target {name}"].state == "not exercised"
        assert said[f"target {name}"].detail == cells[-1] == TARGETS_NOT_EXERCISED[name]


def test_the_table_holds_what_tests_have_seen() -> None:
    table = rows()
    for path in RESULTS.glob("*.json"):
        seen = json.loads(path.read_text())
        validated, ran, same_text, digest, _ = table[seen["target"]]
        assert path.stem == seen["target"]
        assert (validated, ran) == (seen["validated"] or "nothing", seen["ran"] or "nothing")
        assert (same_text, digest) == (("yes", "yes") if seen["ran"] else ("not run", "not run"))


def test_doctor_names_the_targets() -> None:
    done = command.run("doctor")
    assert done.returncode == 0, done.stderr
    for name, what in TARGETS_NOT_EXERCISED.items():
        assert any(line.split()[1:3] == ["target", name] and what in line for line in done.stdout.splitlines())

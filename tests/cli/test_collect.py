"""What ``treadle collect`` says of what it could not read."""

from __future__ import annotations

import json
from pathlib import Path

import command

FILE = """\
name: t
task: chat
collect: {sources: [{type: files, path: rows.jsonl}]}
develop: {base_model: smollm2-135m-instruct}
"""


def test_more_quarantined_pieces_than_are_shown(tmp_path: Path) -> None:
    (tmp_path / "treadle.yaml").write_text(FILE)
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n' + "{bad\n" * 22)
    said = command.run("-C", str(tmp_path), "collect").stdout
    assert said.count("quarantined files:rows.jsonl at ") == 20
    assert said.splitlines()[-1] == "collect   ... and 2 more quarantined; --json names all"
    assert len(json.loads(command.run("-C", str(tmp_path), "collect", "--json").stdout)["quarantined"]) == 22

"""Data sets of the ``datasets`` library out of a folder; the hub itself cannot be reached from tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.source import OpenSource, SourceContext, open_source, read_sources

datasets = pytest.importorskip("datasets")
ROWS = [{"question": "Tea?", "answer": "Yes.", "n": 1}, {"question": "Milk?", "answer": "", "n": 2}]
PAIR = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}]


def opened(folder: Path, **settings: Any) -> OpenSource:
    return open_source({"type": "huggingface", **settings}, SourceContext(folder, str))


def collected(source: OpenSource) -> tuple[list[Document], Accounting]:
    accounting = Accounting()
    return [each for batch in read_sources([source], accounting) for each in batch], accounting.close()


@pytest.mark.parametrize("kind", ["saved", "saved splits", "data files"])
def test_rows_of_a_folder(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    if kind == "data files":
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "saved":
        datasets.Dataset.from_list(ROWS).save_to_disk(str(folder))
    else:
        datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(folder))
    source = opened(tmp_path, path="set", license="MIT")
    before = source.fingerprint()
    (document,), accounting = collected(source)
    assert (document.fields, document.license) == ({"messages": PAIR, "n": 1}, "MIT")
    assert document.locator == "set/train:1"
    assert [piece.reason for piece in accounting.quarantined] == ["row 2: message 2 is empty"]
    assert list(source.source.read("set/train:2")) == []
    assert source.fingerprint() == before
    (folder / "more.jsonl").write_text('{"question": "a", "answer": "b", "n": 1}\n')
    assert source.fingerprint() != before
    if kind != "saved":  # one without splits has the name that is asked for
        with pytest.raises(UserError, match=r"no split 'tran'; did you mean 'train'"):
            collected(opened(tmp_path, path="set", split="tran"))


def test_what_cannot_be_opened_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for settings, words in [
        ({"path": "no/such"}, "no folder"),
        ({"path": "empty"}, "cannot be opened"),
        ({"path": "x", "token": "hf_word"}, "does not stand in the file"),
    ]:
        with pytest.raises(UserError, match="huggingface: ") as caught:
            source = opened(tmp_path, **settings)
            source.fingerprint()
            collected(source)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)

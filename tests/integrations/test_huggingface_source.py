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


def test_reading_goes_on_from_a_document_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").symlink_to("real")
    rows = [{"key": key, "text": key} for key in ("a", "b", "c")]
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = opened(tmp_path, path="set", fields={"id": "key"})
    assert [each.locator for each in collected(source)[0]] == ["set/train#a", "set/train#b", "set/train#c"]
    assert [each.text for each in source.source.read("set/train#b") if isinstance(each, Document)] == ["c"]
    with pytest.raises(UserError, match=r"no row has the column 'at' of fields\.time; known: key, text"):
        collected(opened(tmp_path, path="set", fields={"time": "at"}))
    with pytest.raises(UserError, match="no document 'set/train#x'"):
        list(source.source.read("set/train#x"))


@pytest.mark.parametrize("name", ["../outside.jsonl", "{folder}/outside.jsonl", "sub/../../outside.jsonl"])
def test_files_outside_the_folder_are_not_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside.jsonl").write_text('{"text": "secretword"}\n')
    files = name.replace("{folder}", str(tmp_path))
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n"
    (folder / "README.md").write_text(card)
    with pytest.raises(UserError, match="which is not in it"):
        collected(opened(tmp_path, path="set"))


@pytest.mark.parametrize("what", ["split", "file"])
def test_a_saved_set_names_its_own_files_only(tmp_path: Path, what: str) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "other"))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "set"))
    if what == "split":
        (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["../other"]}')
    else:
        path = tmp_path / "set" / "train" / "state.json"
        state = json.loads(path.read_text())
        state["_data_files"] = [{"filename": "../../other/data-00000-of-00001.arrow"}]
        path.write_text(json.dumps(state))
    with pytest.raises(UserError, match="which is not in it"):
        collected(opened(tmp_path, path="set"))


def test_a_file_that_is_damaged_further_on_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    good = json.dumps({"text": "x" * 1000}) + "\n"
    (tmp_path / "set" / "train.jsonl").write_text(good * 11_000 + '{"text": secretword\n')
    with pytest.raises(UserError, match=r"set/train cannot be read beyond row \d+ \(\w+\); check") as caught:
        collected(opened(tmp_path, path="set"))
    assert "secretword" not in str(caught.value)


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

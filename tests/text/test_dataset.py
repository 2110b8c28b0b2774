"""Datasets on disk: what goes in comes out, the bytes are the content's, and what is not a dataset is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.errors import Corrupt, UserError
from treadle.text.dataset import (
    SPLITS,
    Example,
    iterate_split,
    read_split,
    split_document_ids,
    split_groups,
    write_dataset,
)

ACCOUNTING = {"in": 1, "kept": 1, "dropped": {}, "quarantined": []}


def doc(number: int) -> str:
    return f"doc:{number:064x}"


def chat(number: int, group: str = "json") -> Example:
    messages = ({"role": "user", "content": f"What is {number}?"}, {"role": "assistant", "content": f"It is {number}."})
    return Example((doc(number),), messages=messages, group=group, fields={"locator": f"json.{number}"})


texts = st.text(max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts}), max_size=4
)
examples = st.builds(
    Example,
    documents=st.lists(st.integers(0, 2**64).map(doc), min_size=1, max_size=3).map(tuple),
    messages=messages.map(tuple),
    text=texts,
    label=st.none() | texts,
    group=texts,
    fields=st.dictionaries(texts, json_values, max_size=3),
)


@given(st.lists(examples, max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[Example]) -> None:
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, {"train": written}, accounting=ACCOUNTING)
    assert read_split(folder, "train") == written
    assert read_split(folder, "test") == []
    ids = sorted({name for example in written for name in example.documents})
    assert split_document_ids(folder, "train") == tuple(ids)


def test_the_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    splits = {"train": [chat(n) for n in range(50)], "test": [chat(n, "gzip") for n in range(50, 60)]}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, splits, accounting=ACCOUNTING, info={"seed": 17})
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted([*(f"{split}.parquet" for split in SPLITS), "dataset.json", "accounting.json"])
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    about = json.loads((tmp_path / "a" / "dataset.json").read_bytes())
    assert about["counts"] == {"train": 50, "validation": 0, "test": 10, "holdout": 0}
    assert about["seed"] == 17
    assert split_groups(tmp_path / "a") == {"json": "train", "gzip": "test"}


def test_batches_are_bounded(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": [chat(n) for n in range(25)]}, accounting=ACCOUNTING)
    assert [len(batch) for batch in iterate_split(tmp_path, "train", rows=10)] == [10, 10, 5]


def test_an_id_depends_on_what_is_said_and_on_its_documents() -> None:
    assert chat(1).id == chat(1, group="other").id
    assert chat(1).id != chat(2).id
    assert chat(1).id != Example((doc(2),), messages=chat(1).messages).id
    assert chat(1).question == "What is 1?"
    assert chat(1).answer == "It is 1."
    assert Example((doc(1),), text="good", label="yes").answer == "yes"


def test_no_example_without_lineage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no document"):
        write_dataset(tmp_path, {"train": [Example((), text="x")]}, accounting=ACCOUNTING)
    assert not (tmp_path / "train.parquet").exists()


def test_strange_messages_and_splits_are_refused(tmp_path: Path) -> None:
    for message in ({"role": "robot", "content": "x"}, {"role": "user", "content": "x", "tool_calls": []}):
        odd = Example((doc(1),), messages=(message,))
        with pytest.raises(UserError, match=f"role '{message['role']}'"):
            write_dataset(tmp_path, {"train": [odd]}, accounting=ACCOUNTING)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        write_dataset(tmp_path, {"dev": []}, accounting=ACCOUNTING)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        read_split(tmp_path, "dev")


def test_calls_of_tools_are_kept_and_only_then_a_new_format_is_written(tmp_path: Path) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern", "days": 2}}}
    messages = (
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "a", "name": "weather"},
        {"role": "assistant", "content": "Sunny."},
    )
    tools = ({"type": "function", "function": {"name": "weather"}},)
    calling = Example((doc(1),), messages=messages, tools=tools)
    write_dataset(tmp_path, {"train": [calling, chat(1)], "test": [chat(2)]}, accounting=ACCOUNTING)
    assert read_split(tmp_path, "train") == [calling, chat(1)]
    assert read_split(tmp_path, "test") == [chat(2)]
    formats = {
        name: pq.read_schema(tmp_path / f"{name}.parquet").metadata[b"treadle.dataset.format"]
        for name in ("train", "test")
    }
    assert formats == {"train": b"2", "test": b"1"}
    assert calling.id != Example((doc(1),), messages=messages).id
    assert Example((doc(1),), messages=messages[:2]).answer == json.dumps(call["function"])


def test_what_is_no_dataset_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"holds no train\.parquet"):
        read_split(tmp_path, "train")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(Corrupt, match="is not Parquet"):
        read_split(tmp_path, "train")
    write_dataset(tmp_path, {"train": [chat(1)]}, accounting=ACCOUNTING)
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.replace_schema_metadata({"treadle.dataset.format": "99"}), tmp_path / "train.parquet")
    with pytest.raises(Corrupt, match="format 99"):
        read_split(tmp_path, "train")

"""Documents survive the trip through Parquet, and the same documents make the same bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.core.artifacts import Builder
from treadle.core.errors import Corrupt, UserError
from treadle.core.store import Store
from treadle.text import corpus as corpus_module
from treadle.text.corpus import Corpus, read_documents, write_corpus
from treadle.text.document import Document, document_id

text = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
documents = st.builds(
    Document,
    id=text.map(lambda name: document_id("test", name, b"")),
    source=text,
    locator=text,
    text=text,
    license=st.none() | text,
    time=st.none() | text,
    origin=st.sampled_from(["human", "synthetic", "feedback", "traffic"]),
    parents=st.lists(text, max_size=2).map(tuple),
    purpose=st.none() | text,
    subject=st.none() | text,
    retain_until=st.none() | text,
    opt_out=st.lists(text, max_size=2).map(tuple),
    fields=st.dictionaries(text, plain, max_size=3),
)


def some(count: int) -> list[Document]:
    return [
        Document(document_id("t", str(n), b""), "t", str(n), f"text {n} " * 20, fields={"n": n}) for n in range(count)
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(documents, max_size=8))
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, made: list[Document]) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    ids = write_corpus(folder, [made])
    assert [document for batch in read_documents(folder) for document in batch] == made
    assert list(ids) == sorted({document.id for document in made})


def test_bytes_depend_on_the_documents_and_not_on_the_batches(tmp_path: Path) -> None:
    made = some(12_345)
    for name, size in (("a", 1), ("b", 777), ("c", 20_000)):
        (tmp_path / name).mkdir()
        write_corpus(tmp_path / name, (made[start : start + size] for start in range(0, len(made), size)))
    written = [(tmp_path / name / "documents-00000.parquet").read_bytes() for name in "abc"]
    assert written[0] == written[1] == written[2]


def test_a_long_corpus_is_several_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_GROUP_CHARACTERS", 5_000)
    monkeypatch.setattr(corpus_module, "_FILE_CHARACTERS", 20_000)
    made = some(1_000)
    write_corpus(tmp_path, [made])
    assert len(list(tmp_path.glob("*.parquet"))) > 3
    assert [document for batch in read_documents(tmp_path) for document in batch] == made


def test_an_empty_corpus_is_a_corpus(tmp_path: Path) -> None:
    assert list(write_corpus(tmp_path, [])) == []
    assert list(read_documents(tmp_path)) == []


def test_another_format_is_told_with_its_number(tmp_path: Path) -> None:
    write_corpus(tmp_path, [some(1)])
    path = tmp_path / "documents-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"treadle.corpus.format": b"7"}), path)
    with pytest.raises(UserError, match="corpus of format 7; this Treadle reads 1"):
        list(read_documents(tmp_path))
    pq.write_table(table.replace_schema_metadata({}), path)
    with pytest.raises(Corrupt, match="no format number"):
        list(read_documents(tmp_path))


def test_a_corpus_from_the_store(tmp_path: Path) -> None:
    made = some(5)
    with Builder(Corpus, Store(tmp_path / "store")) as builder:
        builder.add_documents(write_corpus(builder.path, [made]))
        corpus_module.Accounting(read=5, kept=5).write(builder.path)
        corpus = builder.commit()
    assert [document for batch in corpus.documents() for document in batch] == made
    assert corpus.document_ids() == tuple(sorted(document.id for document in made))
    assert corpus.accounting().kept == 5

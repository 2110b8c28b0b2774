"""A lake holds exactly one corpus, whatever was there before and wherever a pour ended; other tools read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from treadle.core.errors import UserError
from treadle.core.remote import FolderRemote, Item, Remote, open_remote
from treadle.text.document import Document, document_id
from treadle.text.lake import CURRENT, UNDATED, current, left_over, pour

NAMES = [f"b3:{number:064x}" for number in range(9)]


def made(number: int, *, text: str = "", source: str = "files", time: str | None = None) -> Document:
    locator = f"a.jsonl:{number}"
    text = text or f"Text {number} with ümlauts."
    return Document(document_id(source, locator, text.encode()), source, locator, text, "CC0-1.0", time)


def corpus(count: int = 40) -> list[list[Document]]:
    months = (None, "2024-05-17", "2024-06-01T10:00:00Z", "1999")
    sources = ("files", "my source/x=1")
    documents = [made(n, source=sources[n % 2], time=months[n % 4]) for n in range(count)]
    return [documents[at : at + 7] for at in range(0, count, 7)]


def held(remote: Remote) -> set[str]:
    return {name for name in remote.names("") if name.endswith(".parquet")}


class Dies:
    """A remote that breaks off at one of its writes or deletions: before it, or after it and before anybody knows."""

    def __init__(self, remote: Remote, after: int, *, late: bool) -> None:
        self.url, self._remote, self._left, self._late = remote.url, remote, after, late

    def _step(self) -> bool:
        self._left -= 1
        if self._left < 0 and not self._late:
            raise KeyboardInterrupt
        return self._left < 0

    def names(self, prefix: str) -> Iterator[str]:
        return self._remote.names(prefix)

    def items(self, prefix: str) -> Iterator[Item]:
        return self._remote.items(prefix)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self._remote.read(name, start, length)

    def renew(self, name: str) -> None:
        self._remote.renew(name)

    def write(self, name: str, data: bytes) -> None:
        last = self._step()
        self._remote.write(name, data)
        if last:
            raise KeyboardInterrupt

    def delete(self, name: str) -> None:
        last = self._step()
        self._remote.delete(name)
        if last:
            raise KeyboardInterrupt


def places(folder: Path, bucket: str) -> list[Remote]:
    return [open_remote("lake", folder), open_remote(f"{bucket}/lake", folder)]


def test_the_same_files_in_a_folder_and_in_a_bucket(tmp_path: Path, bucket: str) -> None:
    poured = [pour(remote, NAMES[0], corpus()) for remote in places(tmp_path, bucket)]
    assert poured[0] == poured[1]
    assert poured[0].documents == 40
    first, second = (held(remote) for remote in places(tmp_path, bucket))
    assert first == second
    assert len(first) == poured[0].files == poured[0].written
    again = pour(places(tmp_path, bucket)[1], NAMES[0], corpus())
    assert (again.digest, again.written, again.deleted) == (poured[0].digest, 0, 0)


@pytest.mark.parametrize("late", [False, True])
def test_broken_off_anywhere_it_ends_the_same(tmp_path: Path, late: bool) -> None:
    old, new = corpus(), [[*batch[1:], made(100 + at, time="2024-05-02")] for at, batch in enumerate(corpus())]
    whole = open_remote("whole", tmp_path)
    pour(whole, NAMES[0], old)
    expected = pour(whole, NAMES[1], new)
    assert expected.deleted > 0
    ended = False
    for steps in range(40):
        remote = FolderRemote(tmp_path / f"lake-{steps}")
        pour(remote, NAMES[0], old)
        try:
            pour(Dies(remote, steps, late=late), NAMES[1], new)
            ended = True
        except KeyboardInterrupt:
            said = current(remote)
            assert said is not None
            assert set(said["files"]) <= held(remote)  # what it says of itself is there at every moment
            if said["corpus"] == NAMES[1]:  # all is there, and something more perhaps, which is to be seen
                assert left_over(remote, said) == (held(remote) != set(said["files"]))
        assert pour(remote, NAMES[1], new).digest == expected.digest
        assert held(remote) == held(whole)
    assert ended


def test_a_partition_that_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    remote = open_remote("lake", tmp_path)
    pour(remote, NAMES[0], corpus())
    changed = [*corpus(), [made(99, time="2024-05-30", source="files")]]
    poured = pour(remote, NAMES[1], changed)
    assert (poured.written, poured.deleted) == (1, 0)


def test_duckdb_and_pandas_read_it_as_it_is(tmp_path: Path) -> None:
    import duckdb
    import pandas

    remote = open_remote("lake", tmp_path)
    pour(remote, NAMES[0], corpus())
    expected = {document.id: document for batch in corpus() for document in batch}
    query = f"select * from read_parquet('{tmp_path}/lake/**/*.parquet', hive_partitioning = true)"
    rows = duckdb.sql(query).fetchall()
    columns = duckdb.sql(query).columns
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert {row["id"]: row["text"] for row in found} == {name: each.text for name, each in expected.items()}
    assert {(row["id"], unquote(row["source"])) for row in found} == {(n, d.source) for n, d in expected.items()}
    months = duckdb.sql(f"select month, count(*) from ({query}) group by month order by month").fetchall()
    assert sorted((str(month), count) for month, count in months) == [("2024-05", 10), ("2024-06", 10), (UNDATED, 20)]
    frame = pandas.read_parquet(tmp_path / "lake")
    assert sorted(frame["id"]) == sorted(expected)
    assert set(frame["source"].astype(str)) == {"files", "my source/x=1"}
    assert (frame["month"] == UNDATED).sum() == 20


def test_what_is_no_lake_stays_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "lake"
    place.mkdir()
    (place / "mine.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no lake's"):
        pour(open_remote("lake", tmp_path), NAMES[0], corpus())
    assert [path.name for path in place.iterdir()] == ["mine.parquet"]


@pytest.mark.parametrize(
    ("said", "words"), [(b"{", "not what Treadle wrote"), (b'{"format":9,"corpus":"","files":{}}', "format 9")]
)
def test_a_lake_that_cannot_be_understood_is_refused(tmp_path: Path, said: bytes, words: str) -> None:
    remote = open_remote("lake", tmp_path)
    remote.write(CURRENT, said)
    with pytest.raises(UserError, match=words):
        pour(remote, NAMES[0], corpus())

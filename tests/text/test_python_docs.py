"""The standard library's documentation, the same each time."""

from __future__ import annotations

import platform
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped, Quarantined
from treadle.text.document import Document
from treadle.text.python_docs import PythonDocs
from treadle.text.source import SourceContext, open_source

Keyed = Callable[[str], str]
Pieces = list[Document | Dropped | Quarantined]


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return list(PythonDocs().read())


@pytest.fixture(scope="module")
def documents(pieces: Pieces) -> dict[str, Document]:
    return {piece.locator: piece for piece in pieces if isinstance(piece, Document)}


def test_twice_is_the_same(pieces: Pieces) -> None:
    assert list(PythonDocs().read()) == pieces


def test_there_is_about_as_much_as_there_should_be(pieces: Pieces, documents: dict[str, Document]) -> None:
    kinds = Counter(type(piece) for piece in pieces)
    pairs = [one for one in documents.values() if one.fields["signature"] and one.fields["summary"]]
    assert 7_000 < len(pieces) < 12_000
    assert len(pairs) > 5_000
    assert kinds[Quarantined] < 30
    assert {one.rule for one in pieces if isinstance(one, Dropped)} == {"python_docs.inherited", "python_docs.no_prose"}
    ids = {piece.id for piece in pieces if isinstance(piece, Document)}
    assert len(ids) == kinds[Document]
    assert len(documents) >= kinds[Document] - 3  # `unittest.main` is a class and a module


def test_a_function_a_method_a_module_and_a_topic(documents: dict[str, Document]) -> None:
    dumps = documents["json.dumps"]
    assert dumps.fields["module"] == "json"
    assert dumps.fields["kind"] == "function"
    assert dumps.fields["signature"].startswith("(obj, *, skipkeys=False")
    assert dumps.fields["summary"] == "Serialize ``obj`` to a JSON formatted ``str``."
    assert dumps.text.startswith("json.dumps(obj, ")
    assert (dumps.license, dumps.source, dumps.origin) == ("PSF-2.0", "python_docs", "human")
    assert documents["gzip.GzipFile.fileno"].fields["kind"] == "method"
    assert documents["os.path.join"].fields["module"] == "os.path"
    assert documents["json"].fields["kind"] == "module"
    assert documents["topics/assert"].text.startswith('assert\n\nThe "assert" statement')
    assert documents["builtins.dict.copy"].fields["summary"] == "a shallow copy of D"


def test_nothing_of_this_machine_or_run_is_in_it(documents: dict[str, Document]) -> None:
    for document in documents.values():
        signature = document.fields["signature"] or ""
        assert not re.search(r" at 0x[0-9a-fA-F]+", signature), document.locator
        assert sys.prefix not in document.text, document.locator
        assert str(Path.home()) + "/" not in document.text, document.locator
        assert "PYTHONHASHSEED" not in signature


def test_time_is_the_documentations_own(documents: dict[str, Document]) -> None:
    time = documents["json.dumps"].time
    assert time is None or re.fullmatch(r"20\d\d-\d\d-\d\d", time)


def test_reading_goes_on_after_a_cursor(pieces: Pieces) -> None:
    last = [piece for piece in pieces if isinstance(piece, Document)][-2]
    assert len(list(PythonDocs().read(last.locator))) == 1


def test_a_module_can_be_skipped(documents: dict[str, Document]) -> None:
    less = {piece.locator for piece in PythonDocs(skip=("json",)).read() if isinstance(piece, Document)}
    assert not any(locator == "json" or locator.startswith("json.") for locator in less)
    assert len(less) > 0.9 * len(documents)


def test_the_fingerprint_names_the_python_and_follows_the_settings() -> None:
    assert PythonDocs().fingerprint().startswith(platform.python_version() + " b3:")
    assert PythonDocs().fingerprint() == PythonDocs().fingerprint()
    assert PythonDocs(skip=("json",)).fingerprint() != PythonDocs().fingerprint()


def test_an_interpreter_that_takes_too_long_is_ended() -> None:
    with pytest.raises(UserError, match=r"took over 0\.001 s"):
        list(PythonDocs(time_limit=0.001).read())


def test_it_is_found_by_name(tmp_path: Path, keyed: Keyed) -> None:
    opened = open_source({"type": "python_docs"}, SourceContext(tmp_path, keyed))
    assert isinstance(opened.source, PythonDocs)
    with pytest.raises(UserError, match="there is no source called 'python_doc'; did you mean 'python_docs'"):
        open_source({"type": "python_doc"}, SourceContext(tmp_path, keyed))


def test_a_projects_own_source(tmp_path: Path, keyed: Keyed) -> None:
    (tmp_path / "own_source_here.py").write_text(
        "from treadle.text.document import Document, document_id\n"
        "class Lines:\n"
        "    def __init__(self, *, count: int, context):\n"
        "        self.count, self.project = count, context.project\n"
        "    def fingerprint(self):\n"
        "        return str(self.count)\n"
        "    def read(self, cursor=None):\n"
        "        for n in range(self.count):\n"
        "            yield Document(document_id('lines', str(n), b''), 'lines', str(n), f'line {n}')\n"
    )
    context = SourceContext(tmp_path, keyed)
    opened = open_source({"type": "own_source_here:Lines", "count": 3}, context)
    assert [getattr(piece, "text", "") for piece in opened.source.read()] == ["line 0", "line 1", "line 2"]
    assert opened.version.startswith("b3:")
    with pytest.raises(UserError, match="count: input should be a valid integer"):
        open_source({"type": "own_source_here:Lines", "count": "3"}, context)

"""What the tests of text share: a context for sources, and a way to open one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle.core.digest import keyed_digest
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source, read_sources

Collect = Callable[..., tuple[list[Document], Accounting]]


@pytest.fixture(scope="session")
def keyed() -> Callable[[str], str]:
    """What a project's key would make of a name."""
    return functools.partial(keyed_digest, b"k" * 32, "subject")


@pytest.fixture
def collect(tmp_path: Path, keyed: Callable[[str], str]) -> Collect:
    """Documents and closed accounting of one source in a project at ``tmp_path``."""

    def run(**settings: Any) -> tuple[list[Document], Accounting]:
        accounting = Accounting()
        source = open_source({"type": "files", **settings}, SourceContext(tmp_path, keyed))
        documents = [document for batch in read_sources([source], accounting) for document in batch]
        return documents, accounting.close()

    return run

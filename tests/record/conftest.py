"""A record on disk with the nouns of a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """An empty record of a project called `models-demo`."""
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        yield Record(workspace, "models-demo")
        assert workspace.ledger.verify() == []

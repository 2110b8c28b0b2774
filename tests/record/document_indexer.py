"""Another process at the index of documents, which the tests kill: ``document_indexer.py ROOT``."""

from __future__ import annotations

import sys
from pathlib import Path

from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record

if __name__ == "__main__":
    with Workspace(Path(sys.argv[1]), projections=PROJECTIONS) as workspace:
        record = Record(workspace, "demo")
        while True:
            record.documents.catch_up(0.0)

"""Another process at the index of interactions: what the tests start, and kill.

indexer.py catch_up ROOT          catch up again and again, and print how many there are
indexer.py write ROOT COUNT       append interactions, some with feedback, and print each id
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record

from traffic import Traffic  # isort: skip (beside this file)


def catch_up(record: Record) -> None:
    while True:
        record.interactions.catch_up(0.0)
        sys.stdout.write(f"{record.interactions.count()}\n")
        sys.stdout.flush()


def write(record: Record, count: str) -> None:
    traffic = Traffic(record, random.Random(count))
    for number in range(int(count)):
        sys.stdout.write(f"{traffic.interact()}\n")
        sys.stdout.flush()
        if number % 5 == 0:
            traffic.opine()
        if number % 100 == 99:
            record.workspace.journal.seal()


if __name__ == "__main__":
    with Workspace(Path(sys.argv[2]), projections=PROJECTIONS) as workspace:
        globals()[sys.argv[1]](Record(workspace, "demo"), *sys.argv[3:])

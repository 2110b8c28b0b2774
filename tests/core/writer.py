"""Another process that writes to a record: what the tests start, and kill.

    writer.py ledger ROOT NAME COUNT     append facts, one to three at a time, some of them synced
    writer.py journal ROOT NAME COUNT    append rows to the stream `metrics`
    writer.py seal ROOT SECONDS          seal everybody's segments again and again
    writer.py put ROOT COUNT SIZE        put COUNT trees with files of SIZE bytes
    writer.py tree ROOT                  put one tree that is the same in every process
    writer.py many ROOT COUNT            put COUNT trees of 40 small files; delete those of every second one
    writer.py encrypt ROOT off|on        write anew what lies in another way, again and again
    writer.py run ROOT                   start a run and wait
    writer.py hold ROOT                  hold the project and wait

The database is the one that WRITER_DATABASE names, SQLite's file in ROOT by default; how objects lie is the kind of
stores.py that WRITER_STORE names.
An acknowledged thing is printed only once the call that wrote it has returned.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from treadle.core import taking
from treadle.core.artifacts import Artifact, Builder
from treadle.core.cipher import open_cipher
from treadle.core.driver import Driver
from treadle.core.encrypting import encrypt as recode
from treadle.core.identifiers import new_id
from treadle.core.ledger import Fact, now
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.workspace import Workspace


def ledger(workspace: Workspace, name: str, count: str) -> None:
    chance = random.Random(name)
    done = 0
    while done < int(count):
        batch = [Fact("note", {"writer": name, "number": done + i}) for i in range(chance.randint(1, 3))]
        rows = workspace.ledger.append(*batch, sync=chance.random() < 0.02)
        done += len(rows)
        for row in rows:
            print(row.seq, name, row.body["number"], flush=True)


def journal(workspace: Workspace, name: str, count: str) -> None:
    for number in range(int(count)):
        identifier = new_id("row")
        workspace.journal.append(
            "metrics", {"id": identifier, "writer": name, "number": number, "time": now(), "text": "x" * (number % 500)}
        )
        print(identifier, flush=True)


def seal(workspace: Workspace, seconds: str) -> None:
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        workspace.journal.seal()
        time.sleep(0.003)


def put(workspace: Workspace, count: str, size: str) -> None:
    for number in range(int(count)):
        with Builder(Artifact, workspace.store) as builder:
            for index in range(3):
                (builder.path / f"{index}.bin").write_bytes(random.Random(number * 3 + index).randbytes(int(size)))
            print(builder.commit().digest, flush=True)


def tree(workspace: Workspace) -> None:
    with Builder(Artifact, workspace.store) as builder:
        for index in range(200):
            (builder.path / f"{index}.txt").write_text(str(index) * 100)
        print(builder.commit().digest, flush=True)


def many(workspace: Workspace, count: str) -> None:
    for number in range(int(count)):
        with Builder(Artifact, workspace.store) as builder:
            for index in range(40):
                (builder.path / f"{index}.txt").write_text(f"{number} {index} " * 50)
            made = builder.commit()
        print("put", made.digest, flush=True)
        if number % 2:
            doomed = {made.digest, *(entry.digest for entry in made.entries())}
            print("deleting", made.digest, flush=True)
            workspace.store.delete(doomed)
            print("deleted", made.digest, flush=True)


def encrypt(workspace: Workspace, off: str) -> None:
    print("begun", flush=True)
    recode(workspace.store, off=off == "off")
    print("ended", flush=True)


@step(version=1, name="writer.wait")
def wait(*, run: Run) -> Artifact:
    print(run.id, flush=True)
    time.sleep(60)
    raise AssertionError("nobody killed it")


def run(workspace: Workspace) -> None:
    Driver(workspace.runs, workspace.root, seed=1).run(wait)


def hold(workspace: Workspace) -> None:
    with workspace.exclusive():
        print("held", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    how = os.environ.get("WRITER_STORE", "")
    taking.MANY = 1 if "packed" in how else taking.MANY
    cipher = open_cipher("${env:WRITER_KEY}", Path()) if "encrypted" in how else None
    place, database = Path(sys.argv[2]), os.environ.get("WRITER_DATABASE") or None
    with Workspace(place, database, cipher=cipher, bucket=os.environ.get("WRITER_BUCKET") or None) as opened:
        globals()[sys.argv[1]](opened, *sys.argv[3:])

"""A process of ours for as long as it is measured, and our server in one."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_DIGEST = "b3:" + "0" * 64
_spawn = multiprocessing.get_context("spawn")


@contextmanager
def worker(target: Callable[[Path, Connection], None], folder: Path) -> Iterator[tuple[Any, Connection]]:
    """Run ``target`` in a process; it says a first word (a URL, for servers) and ends when it is sent None."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=target, args=(folder, theirs), daemon=False)
    process.start()
    theirs.close()
    try:
        yield ours.recv(), ours
        ours.send(None)
        process.join(30)
    finally:
        process.terminate()
        process.join()


def serve(
    folder: Path, connection: Connection, open_engine: Callable[[], Awaitable[Any]], *, slo: Any = None, **release: Any
) -> None:
    """Our server, recording and looking for personal data as it does for anybody, with the engine of ``folder``; says
    its URL, and ends when it hears anything. ``release`` is what else a ``ServedRelease`` is given."""
    from treadle.core.workspace import Workspace
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.record.recorder import JournalRecorder
    from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
    from treadle.serve.server import serving
    from treadle.text.personal_data import redact

    served = ServedRelease("bench@v1", _DIGEST, **release)
    tokenizer = ChatTokenizer.load(folder) if served.asking == "chat" else None
    with Workspace(Path(tempfile.mkdtemp(dir=folder))) as workspace:  # goes with the folder
        recorder = JournalRecorder(workspace.journal, workspace.keys, workspace.ledger)

        async def build() -> Gateway:
            settings = GatewaySettings(api_key=None, slo=slo)
            return Gateway(Serving(served, await open_engine(), tokenizer), recorder, settings=settings, redact=redact)

        with serving(build) as url:
            connection.send(url)
            connection.recv()

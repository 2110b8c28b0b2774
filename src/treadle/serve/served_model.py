"""One model of a server: the releases that answer for it, and the record that its requests go to.

A server has one, or several, each of another project. What was asked of a model is written to the record of its project
alone, whatever key it was asked with.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from treadle.core.errors import TreadleError
from treadle.record.interaction import Interaction
from treadle.record.recording import Recording
from treadle.serve.errors import no_model
from treadle.serve.recorder import Recorder
from treadle.serve.release import Serving
from treadle.serve.table import Chosen, Table

if TYPE_CHECKING:
    from treadle.serve.shadow import Shadows

_AS_USUAL = Recording()


class ServedModel:
    """``name`` is what requests call it, the project's; empty where a server has no other.

    ``unrecorded`` are rows that the record could not take: while there are any, nothing else of this model is answered
    or refused. ``shadows`` are given by the gateway that has it.
    """

    shadows: Shadows

    def __init__(
        self,
        name: str,
        recorder: Recorder,
        recording: Recording = _AS_USUAL,
        *,
        table: Table | None = None,
        sticky: str = "user",
    ) -> None:
        """``recording`` says what is kept of a request, ``sticky`` as in `GatewaySettings`."""
        self.name = name
        self.recorder = recorder
        self.recording = recording
        self.sticky = sticky
        self.table = Table() if table is None else table
        self.unrecorded: deque[Interaction] = deque()
        self.feedback_lock = asyncio.Lock()
        self.withheld = False  # nobody is answered, and nobody may say anything of what was answered
        self.unread_until = 0.0  # its record could not be read; on time.monotonic's clock

    @property
    def serving(self) -> Serving:
        """What answers a request that asks for nothing else, canary aside. Raises 503 when nothing does."""
        found = self.table.champion or self.table.fallback
        if found is None:
            raise no_model()
        return found

    def choose(self, asked: str | None, drawn_by: str | None) -> Chosen:
        """What answers this request; those with the same ``drawn_by`` get the same. Raises 404 and 503, as
        `Table.choose`."""
        person = self.recorder.keyed(drawn_by) if drawn_by and self.table.canary is not None else None
        return self.table.choose(asked, person)

    def ready(self) -> bool:
        """True when a request sent now would be answered."""
        first = self.table.champion or self.table.fallback
        if first is None or self.unrecorded:
            return False
        try:
            first.engine.stats()
        except TreadleError:
            return False
        return True

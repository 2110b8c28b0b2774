"""What a teacher said so far, kept until the step that asked is done, so that nobody is asked twice.

A file a reply, whole or not there, encrypted where the store is. They lie where unfinished training lies, which goes
when a person is erased.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from treadle.core.cipher import Cipher
from treadle.core.errors import Corrupt, UserError
from treadle.core.store import Store
from treadle.lm.teacher import Reply

_PLACE = ("cache", "checkpoints", "replies")


class Replies:
    """Replies by the prompt's id."""

    def __init__(self, folder: Path, cipher: Cipher | None) -> None:
        self._folder, self._cipher = folder, cipher

    @classmethod
    def of(cls, store: Store) -> Replies:
        """Those of a store."""
        return cls(store.root.joinpath(*_PLACE), store.cipher)

    def __contains__(self, prompt: object) -> bool:
        return isinstance(prompt, str) and self.get(prompt) is not None

    def get(self, prompt: str) -> Reply | None:
        """The reply; None where there is none that is whole."""
        path = self._path(prompt)
        with suppress(FileNotFoundError, Corrupt, UserError, ValueError, TypeError):
            data = path.read_bytes()
            if self._cipher is not None:
                data = self._cipher.decrypt(data, str(path))
            return Reply(**json.loads(data))
        return None

    def keep(self, prompt: str, reply: Reply) -> None:
        """Write it down; ``UserError`` when the disk does not take it."""
        data = json.dumps(asdict(reply)).encode()
        if self._cipher is not None:
            data = self._cipher.encrypt(data)
        path = self._path(prompt)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            raise UserError(
                f"prepare.synthesize: a reply could not be kept in {self._folder} ({error.strerror}); make room and run"
                " the same command again"
            ) from None

    def discard(self) -> None:
        """Remove them all: what was made of them is in the store."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, prompt: str) -> Path:
        return self._folder / prompt.rpartition(":")[2]

"""Checkpoints of a training: what it needs to go on as if it had never stopped, in files that are whole or not there.

They lie in one folder a training, named by everything it depends on, and are written by a thread while the training
goes on. The two newest are kept: should the newest be damaged, the one before it serves.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from treadle.core.cipher import Cipher
from treadle.core.errors import Corrupt, UserError

if TYPE_CHECKING:
    import torch

FORMAT = 1
_KEPT = 2
_MOST_TIME = 0.02  # share of a training that may go into its checkpoints
_SUFFIX = ".checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and what else has to be known; ``step`` steps are done."""

    step: int
    tensors: dict[str, torch.Tensor]
    notes: dict[str, Any]


class Checkpoints:
    """Those of one training; use it in a ``with`` block, which waits for the last one to be written."""

    def __init__(self, folder: Path, *, every: float, cipher: Cipher | None = None) -> None:
        """``every``: seconds from one to the next; more where writing one takes long."""
        self.folder, self.every, self.cipher = folder, every, cipher
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[float] | None = None
        self._last, self._took = time.monotonic(), 0.0
        self.seconds = 0.0

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def due(self) -> bool:
        """Whether it is time, and the one before is written."""
        if self._writing is not None:
            if not self._writing.done():
                return False
            self._took, self._writing = self._writing.result(), None
        return time.monotonic() - self._last >= max(self.every, self._took / _MOST_TIME)

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Copy the state, and let it be written while the training goes on.

        ``UserError`` when the one before could not be written: a training that cannot go on after a fall says so.
        """
        began = time.monotonic()
        if self._writing is not None:
            self._writing.result()
        held = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        self._writing = self._pool.submit(self._write, step, held, dict(notes))
        self._last = time.monotonic()
        self.seconds += self._last - began

    def wait(self) -> None:
        """Until what was saved is on the disk. Errors as ``save``."""
        if self._writing is not None:
            self._writing.result()

    def _write(self, step: int, tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> float:
        from safetensors import SafetensorError  # which is how a full disk is told

        began = time.monotonic()
        about = json.dumps({"format": FORMAT, "step": step, **notes}, sort_keys=True)
        partial = self.folder / f".{step}.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lay_down(partial, tensors, {"treadle": about})
            partial.replace(self.folder / f"{step:012}{_SUFFIX}")
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UserError(
                f"training: no checkpoint could be written to {self.folder} ({why}); the one before it is "
                "as it was: make room and run the same command again"
            ) from None
        for old in self._files()[:-_KEPT]:
            old.unlink(missing_ok=True)
        return time.monotonic() - began

    def _lay_down(self, path: Path, tensors: dict[str, torch.Tensor], about: dict[str, str]) -> None:
        """Write a file and its digest; as they lie in memory, for a copy of all would be as large as the model and its
        moments once more. Encrypted, they never lie on the disk as they are."""
        from safetensors.torch import save, save_file

        if self.cipher is None:
            save_file(tensors, path, metadata=about)
            rest = blake3().update_mmap(path).digest()
        else:
            data = save(tensors, metadata=about)
            tensors.clear()
            rest = self.cipher.encrypt(data + blake3(data).digest())
        with path.open("ab" if self.cipher is None else "wb") as file:
            file.write(rest)
            file.flush()
            os.fsync(file.fileno())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))

    def latest(self) -> Checkpoint | None:
        """The newest that is whole; what was cut short or damaged is passed over."""
        for path in reversed(self._files()):
            with suppress(Corrupt, UserError, ValueError, KeyError, OSError):
                return self._read(path)
        return None

    def at(self, step: int) -> Checkpoint:
        """That of a step. ``Corrupt``, ``UserError`` or ``OSError`` when it is not there or not whole."""
        return self._read(self.folder / f"{step:012}{_SUFFIX}")

    def _read(self, path: Path) -> Checkpoint:
        from safetensors.torch import load

        data = path.read_bytes()
        if self.cipher is not None:
            data = self.cipher.decrypt(data, str(path))
        data, check = data[:-32], data[-32:]
        if blake3(data).digest() != check:
            raise Corrupt(f"{path} is damaged")
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        notes = json.loads(head["__metadata__"]["treadle"])
        if notes["format"] != FORMAT:
            raise Corrupt(f"{path} is of another format")
        return Checkpoint(int(notes["step"]), load(data), notes)

    def discard(self) -> None:
        """Remove them: the training is done and what it made is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

"""torchao as an engine: transformers' models with weights of fewer bits, quantized when they are loaded.

The folder stays as it was trained, so the release is not smaller on the disk; memory is.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.core.errors import MissingExtra, UserError
from treadle.lm.engine_settings import WorkerSettings, convert_settings
from treadle.lm.optimizations import Folder
from treadle.lm.transformers_engine import TransformersBackend, TransformersEngine, TransformersSettings

Scheme = Literal["int8-dynamic", "int8-weights"]


class TorchaoSettings(TransformersSettings, frozen=True, kw_only=True):
    """``scheme`` int8-dynamic: activations are rounded to 8 bits as well, as they come."""

    scheme: Scheme = "int8-weights"


class TorchaoEngine(TransformersEngine):
    """A Hugging Face folder whose matrices torchao rounds to 8 bits when it is opened, in a worker process."""

    name: ClassVar[str] = "torchao"
    backend: ClassVar[str] = "treadle.integrations.torchao:TorchaoBackend"
    settings_type: ClassVar[type[WorkerSettings]] = TorchaoSettings

    @classmethod
    def suits(cls, folder: Path) -> bool:
        """Only by its name, never under `auto`."""
        return False

    @classmethod
    def check(cls, folder: Path) -> None:
        """As ``WorkerEngine.check``."""
        if importlib.util.find_spec("torchao") is None:
            raise MissingExtra("torchao", extra="torchao")
        super().check(folder)


class TorchaoBackend(TransformersBackend):
    """The worker's side."""

    def __init__(self, folder: Path, threads: int | None, settings: TorchaoSettings) -> None:
        super().__init__(folder, threads, settings)
        if self._task == "embed":
            raise UserError("the torchao engine generates, scores and classifies; choose engine: transformers")
        quantize(self._model if self._task == "generate" else self._classifier.model, settings.scheme)

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> TorchaoBackend:
        """As ``Backend.open``."""
        return cls(folder, threads, convert_settings("torchao", TorchaoSettings, settings))


def quantize(model: Any, scheme: Scheme) -> None:
    """Round the matrices of a torch model, in place."""
    logging.getLogger("torchao").setLevel(logging.ERROR)
    try:
        from torchao.quantization import (
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )
    except ModuleNotFoundError:
        raise MissingExtra("torchao", extra="torchao") from None
    quantize_(model, Int8DynamicActivationInt8WeightConfig() if scheme == "int8-dynamic" else Int8WeightOnlyConfig())


class TorchaoInt8(Folder):
    """Matrices of 8 bits by torchao, computed in 16 where the processor multiplies them."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "torchao", "transformers")
    engine: ClassVar[str] = "torchao"
    settings: ClassVar[Mapping[str, Any]] = {"scheme": "int8-weights"}


class TorchaoInt8Dynamic(TorchaoInt8):
    """Matrices of 8 bits by torchao, and activations rounded to 8 bits as they come."""

    settings: ClassVar[Mapping[str, Any]] = {"scheme": "int8-dynamic", "precision": "f32"}

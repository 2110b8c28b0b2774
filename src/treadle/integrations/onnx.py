"""ONNX Runtime as an engine for classifiers, and the ways of optimizing that end in a file it opens."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.errors import MissingExtra, UserError
from treadle.integrations.onnx_export import MODEL, export, session, shape_of
from treadle.lm.batched_classifier import BatchedClassifier, ClassifierBackend
from treadle.lm.engine_settings import WorkerSettings, convert_settings
from treadle.lm.model_folder import read_config
from treadle.lm.optimization import Material, Task
from treadle.lm.optimizations import copy_beside
from treadle.lm.worker_engine import WorkerEngine

_CANNOT = "the onnx engine only classifies; choose engine: transformers, on the Hugging Face folder"
_LONGEST = 512  # tokens, where the model names no limit


class OnnxSettings(WorkerSettings, frozen=True, kw_only=True):
    """``batch_size`` texts are computed together, those of like length. Texts are cut at ``max_length`` tokens; the
    model's own limit by default."""

    batch_size: int = 16
    max_length: int | None = None


class OnnxEngine(WorkerEngine):
    """A classifier's ``model.onnx``, served by ONNX Runtime in a worker process."""

    name: ClassVar[str] = "onnx"
    backend: ClassVar[str] = "treadle.integrations.onnx:OnnxBackend"
    settings_type: ClassVar[type[WorkerSettings]] = OnnxSettings
    preference: ClassVar[int] = 5

    @classmethod
    def suits(cls, folder: Path) -> bool:
        """As ``WorkerEngine.suits``."""
        return (folder / MODEL).is_file() and importlib.util.find_spec("onnxruntime") is not None

    @classmethod
    def check(cls, folder: Path) -> None:
        """As ``WorkerEngine.check``."""
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingExtra("onnxruntime", extra="onnx")
        if not (folder / MODEL).is_file():
            raise UserError(f"{folder}: no {MODEL}; treadle optimize writes one")


class OnnxBackend(ClassifierBackend):
    """The worker's side; `run` gives the logits of a batch."""

    cannot = _CANNOT

    def __init__(self, folder: Path, threads: int | None, settings: OnnxSettings) -> None:
        config = read_config(folder)
        if shape_of(config, folder) != "classifier":
            raise UserError(_CANNOT)
        self.context_length = int(config.get("max_position_embeddings") or _LONGEST)
        opened = session(folder / MODEL, threads)
        self._classifier = BatchedClassifier(
            folder,
            lambda given: opened.run(["logits"], given)[0],
            inputs=[each.name for each in opened.get_inputs()],
            batch_size=settings.batch_size,
            max_length=min(settings.max_length or self.context_length, self.context_length),
        )
        self._classifier.predict(["warm up"])

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> OnnxBackend:
        """As ``Backend.open``."""
        return cls(folder, threads, convert_settings("onnx", OnnxSettings, settings))


class Onnx:
    """ONNX in 32 bits, run by ONNX Runtime; checked output by output when it is written."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[Task, ...]] = ("classify",)
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "torch", "transformers")
    engine: ClassVar[str] = "onnx"
    settings: ClassVar[Mapping[str, Any]] = {}
    learns: ClassVar[bool] = False

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        copy_beside(material.model, out)
        export(material.model, out, seed=material.seed)


class OnnxOneByOne(Onnx):
    """ONNX in 32 bits, one text at a time."""

    settings: ClassVar[Mapping[str, Any]] = {"batch_size": 1}


class OnnxInt8(Onnx):
    """ONNX with matrices of 8 bits, a scale each, and activations rounded as they come (dynamic): often too lossy."""

    per_channel: ClassVar[bool] = False

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        whole = material.scratch / "onnx"
        whole.mkdir()
        export(material.model, whole, seed=material.seed)
        copy_beside(material.model, out)
        quantize(whole / MODEL, out / MODEL, per_channel=self.per_channel)
        shutil.rmtree(whole)


class OnnxInt8PerChannel(OnnxInt8):
    """As `onnx-int8`, with a scale for each row of a matrix."""

    per_channel: ClassVar[bool] = True


def quantize(source: Path, target: Path, *, per_channel: bool) -> None:
    """Dynamic quantization of matrices and embeddings to 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()  # where it recommends a preparation that changes nothing here
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, per_channel=per_channel)
    finally:
        logger.setLevel(level)

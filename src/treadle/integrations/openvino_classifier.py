"""A classifier as OpenVINO IR: the worker's side of its engine, and the ways of optimizing that end there."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.errors import MissingExtra, UserError
from treadle.integrations.onnx_export import MODEL, export
from treadle.lm.batched_classifier import BatchedClassifier, ClassifierBackend
from treadle.lm.engine_worker import first_line
from treadle.lm.model_folder import read_config
from treadle.lm.optimization import Material, Task
from treadle.lm.optimizations import copy_beside

_IR = "openvino_model.xml"
_BATCH = 16  # texts computed together, those of like length
_LONGEST = 512  # tokens, where the model names no limit
_CALIBRATED = 300  # texts
_CANNOT = "this release is a classifier: it gives labels, and neither generates, scores nor embeds"


def is_classifier(folder: Path) -> bool:
    """Whether the IR in a folder is one."""
    if not (folder / _IR).is_file():
        return False
    found = read_config(folder).get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in found)


class OpenVinoClassifierBackend(ClassifierBackend):
    """As the other backend, for labels alone."""

    cannot = _CANNOT

    def __init__(self, folder: Path, threads: int | None, precision: str) -> None:
        openvino = require_openvino()
        self.context_length = int(read_config(folder).get("max_position_embeddings") or _LONGEST)
        properties: dict[str, Any] = {"ENABLE_CPU_PINNING": False, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        if precision == "f32":
            properties["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            compiled = openvino.Core().compile_model(str(folder / _IR), "CPU", properties)
        except RuntimeError as error:
            raise UserError(f"{folder / _IR}: OpenVINO cannot open it ({first_line(error)})") from None
        request = compiled.create_infer_request()
        self._classifier = BatchedClassifier(
            folder,
            lambda given: request.infer(given)["logits"],
            inputs=[each.any_name for each in compiled.inputs],
            batch_size=_BATCH,
            max_length=self.context_length,
        )
        self._classifier.predict(["warm up"])


class OpenVinoClassifier:
    """OpenVINO IR with weights of 16 bits, computed in 16 where the processor multiplies them."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[Task, ...]] = ("classify",)
    packages: ClassVar[tuple[str, ...]] = ("onnx", "openvino", "torch", "transformers")
    engine: ClassVar[str] = "openvino"
    settings: ClassVar[Mapping[str, Any]] = {}
    learns: ClassVar[bool] = False

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        openvino = require_openvino()
        whole = material.scratch / "onnx"
        whole.mkdir()
        export(material.model, whole, seed=material.seed)
        copy_beside(material.model, out)
        graph = self.smaller(openvino.Core().read_model(whole / MODEL), material)
        openvino.save_model(graph, out / _IR, compress_to_fp16=True)

    def smaller(self, graph: Any, _material: Material) -> Any:
        """The graph as it is, but for what saving it rounds."""
        return graph


class OpenVinoClassifierExact(OpenVinoClassifier):
    """OpenVINO IR with weights of 16 bits, computed in 32."""

    settings: ClassVar[Mapping[str, Any]] = {"precision": "f32"}


class OpenVinoClassifierInt8(OpenVinoClassifier):
    """OpenVINO IR with matrices and activations of 8 bits: NNCF finds the ranges on texts of the training split."""

    version: ClassVar[int] = 2
    packages: ClassVar[tuple[str, ...]] = ("nncf", "onnx", "openvino", "torch", "transformers")
    learns: ClassVar[bool] = True

    def smaller(self, graph: Any, material: Material) -> Any:
        """The graph with what converts to 8 bits and back; ranges by ``_CALIBRATED`` texts, spread over all."""
        nncf = require_nncf()
        texts = [text for text, _ in material.labeled]
        if not texts:
            raise UserError("openvino-int8: no text to find the ranges of activations on; expected a training split")
        texts = texts[:: max(1, len(texts) // _CALIBRATED)][:_CALIBRATED]
        encoder = BatchedClassifier(
            material.model,
            lambda _given: None,
            inputs=[each.any_name for each in graph.inputs],
            batch_size=1,
            max_length=int(read_config(material.model).get("max_position_embeddings") or _LONGEST),
        )
        given = [arrays for _, arrays in encoder.batches(texts)]
        with redirect_stdout(io.StringIO()):  # NNCF draws its progress there
            # Processors without VNNI add up pairs of products in 16 bits, which overflow unless weights keep to 7.
            careful = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
            return nncf.quantize(
                graph, nncf.Dataset(given), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(given),
                target_device=nncf.TargetDevice.CPU, advanced_parameters=careful,
            )  # fmt: skip


def require_nncf() -> Any:
    """The module, quiet; ``MissingExtra`` where it is not installed."""
    try:
        import nncf
    except ModuleNotFoundError:
        raise MissingExtra("nncf", extra="nncf") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def require_openvino() -> Any:
    """The module; ``MissingExtra`` where it is not installed."""
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtra("openvino", extra="openvino") from None
    return openvino

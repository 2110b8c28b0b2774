"""What is looked at before anything runs: that what is trained can be served as the file has it."""

from __future__ import annotations

from treadle.evals.task import Task
from treadle.lm.base_model import folder_of
from treadle.lm.engines import check_settings, serves_gguf
from treadle.lm.gguf_description import described
from treadle.lm.gguf_tokenizer import tokenizer_to_gguf
from treadle.stages.deploy.settings import DeploySettings

_GGUF = "gguf-"  # ways of optimizing that write one begin so


def check_deployment(settings: DeploySettings, task: Task, beginning: str | None, *, whole: bool) -> None:
    """``UserError`` for settings that the engine does not have, and a model that cannot be quantized as it is asked.

    ``beginning``: the base model, by name, or, where it is not the ``whole`` one, whose tokenizer a model from nothing
    takes.
    """
    if settings.engine_settings:
        check_settings(settings.engine, settings.engine_settings)
    if beginning is None or not task.gguf or not _writes_gguf(settings):
        return
    folder = folder_of(beginning)
    if folder is None:
        return
    if whole:
        described(folder)
    else:
        tokenizer_to_gguf(folder)


def _writes_gguf(settings: DeploySettings) -> bool:
    if settings.upstream is not None or settings.adapter == "separate":
        return False
    if settings.optimization is not None:
        return settings.optimization.way.startswith(_GGUF)
    return settings.quantize is not None and serves_gguf(settings.engine)

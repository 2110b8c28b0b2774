"""What is looked at before anything runs: that what is trained can be served as the file has it."""

from __future__ import annotations

from treadle.evals.task import Task
from treadle.lm import gguf
from treadle.lm.base_model import folder_of
from treadle.lm.engines import check_settings, serves_gguf
from treadle.stages.deploy.settings import DeploySettings


def check_deployment(settings: DeploySettings, task: Task, base_model: str | None) -> None:
    """``UserError`` for settings that the engine does not have, and a model that cannot be quantized as it is asked."""
    if settings.engine_settings:
        check_settings(settings.engine, settings.engine_settings)
    other = settings.upstream or settings.optimization or settings.adapter == "separate"
    if other or settings.quantize is None or not task.gguf or not serves_gguf(settings.engine):
        return
    folder = folder_of(base_model) if base_model is not None else None
    if folder is not None:
        gguf.described(folder)

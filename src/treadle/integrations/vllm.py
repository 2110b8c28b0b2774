"""vLLM as an engine: whatever Hugging Face folder it knows, in a worker that may be another environment's.

vLLM pins its own torch, so it seldom shares an environment with anything. ``TREADLE_VLLM_PYTHON`` names the interpreter
of one where it is installed; that needs nothing of ours, which comes with the worker.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

import treadle
from treadle.core.errors import UserError
from treadle.lm.engine_settings import WorkerSettings
from treadle.lm.model_folder import read_config
from treadle.lm.safetensors_folder import check_folder
from treadle.lm.worker_engine import WorkerEngine

VARIABLE = "TREADLE_VLLM_PYTHON"
_DECODERS = ("ForCausalLM", "LMHeadModel")


class VllmSettings(WorkerSettings, frozen=True, kw_only=True):
    """``max_length``: tokens of prompt and answer together; the model's own limit by default. ``memory``: the part of a
    GPU that weights, keys and values take. ``kv_cache_gb``: what keys and values take on a CPU.

    ``compile``: let torch compile the model, which takes minutes at each start and gains on a GPU. ``enable_lora``:
    take adapters, as releases that keep theirs apart need it: of rank ``max_lora_rank``, ``max_loras`` in one step.
    """

    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    max_length: int | None = None
    max_sequences: int = 64
    prefix_caching: bool = True
    memory: float = 0.9
    kv_cache_gb: int = 1
    compile: bool = False
    enable_lora: bool = False
    max_loras: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 16


class VllmEngine(WorkerEngine):
    """A Hugging Face folder, served by vLLM in a worker process, of an environment of its own where need be."""

    name: ClassVar[str] = "vllm"
    backend: ClassVar[str] = "treadle.integrations.vllm_backend:VllmBackend"
    settings_type: ClassVar[type[WorkerSettings]] = VllmSettings
    preference: ClassVar[int] = -10  # only for who asks for it: it starts slowly, and takes the memory it is given
    holds_schema: ClassVar[bool] = True
    most_alternatives: ClassVar[int] = 20
    loads_adapters: ClassVar[bool] = True
    shares_base: ClassVar[bool] = True

    @classmethod
    def suits(cls, folder: Path) -> bool:
        """As ``WorkerEngine.suits``."""
        try:
            cls.python()
        except UserError:
            return False
        found = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
        return found and _writes(folder)

    @classmethod
    def check(cls, folder: Path) -> None:
        """As ``WorkerEngine.check``; weights that are pickles are refused."""
        check_folder(folder)
        if not _writes(folder):
            raise UserError(f"{folder}: no model that continues a text; the vllm engine takes no other kind")

    @classmethod
    def python(cls) -> str:
        """As ``WorkerEngine.python``: that of ``TREADLE_VLLM_PYTHON``, or this one where vLLM is installed here."""
        named = os.environ.get(VARIABLE)
        if named:
            if not os.access(named, os.X_OK):
                raise UserError(f"{VARIABLE}: {named} is no program; expected the python of an environment with vLLM")
            return named
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "engine vllm: vLLM is not installed here; install it in an environment of its own (python -m venv vllm"
                f" && vllm/bin/pip install vllm) and set {VARIABLE}=vllm/bin/python, or pip install 'treadle[vllm]'"
            )
        return sys.executable

    @classmethod
    def environment(cls, settings: WorkerSettings) -> dict[str, str]:
        """As ``WorkerEngine.environment``."""
        assert isinstance(settings, VllmSettings)
        found = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker is the process that is watched, and the only one
            "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gb),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_PLUGINS": "",  # code that nobody here chose
        }
        if cls.python() != sys.executable:
            found["PYTHONPATH"] = _alone()
        return found

    @classmethod
    def with_adapters(cls, settings: WorkerSettings) -> WorkerSettings:
        """As ``WorkerEngine.with_adapters``."""
        return msgspec.structs.replace(settings, enable_lora=True)


@cache
def _alone() -> str:
    """A folder that leads to Treadle and nothing else, gone when this process ends: what is installed beside it here,
    such as another torch, must not stand in for what the other environment has."""
    made = tempfile.mkdtemp(prefix="treadle-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    (Path(made) / "treadle").symlink_to(Path(next(iter(treadle.__path__))).resolve())
    return made


def _writes(folder: Path) -> bool:
    names = read_config(folder).get("architectures") or []
    return any(str(name).endswith(_DECODERS) for name in names)

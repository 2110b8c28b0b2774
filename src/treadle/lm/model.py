"""A model: a Hugging Face folder with safetensors weights, and how it came to be."""

from __future__ import annotations

from typing import Any, ClassVar

from treadle.core.artifacts import Artifact

ABOUT = "treadle.json"
FORMAT = 1


class Model(Artifact):
    """``model.safetensors``, ``config.json``, tokenizer files, ``treadle.json`` and the ids of its documents."""

    kind: ClassVar[str] = "model"

    def about(self) -> dict[str, Any]:
        """Base model, license, method and size, as training wrote them down."""
        about: dict[str, Any] = self.read_json(ABOUT)
        return about


class Optimized(Artifact):
    """A model in the form a release carries: ``model.gguf`` or safetensors, tokenizer files, ``optimization.json``."""

    kind: ClassVar[str] = "optimized"

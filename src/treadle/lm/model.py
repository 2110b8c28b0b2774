"""A model: a Hugging Face folder with safetensors weights, and how it came to be."""

from __future__ import annotations

from typing import Any, ClassVar

from treadle.core.artifacts import Artifact

ABOUT = "treadle.json"
FORMAT = 1


class Model(Artifact):
    """``model.safetensors``, ``config.json``, tokenizer files, ``treadle.json`` and the ids of its documents; of one
    that was trained with `method: lora` also what was merged, in ``adapter``."""

    kind: ClassVar[str] = "model"

    def about(self) -> dict[str, Any]:
        """Base model, license, method and size, as training wrote them down."""
        about: dict[str, Any] = self.read_json(ABOUT)
        return about

    def adapter_base(self) -> str | None:
        """The digest of what its adapter lies beside: a base model's, or that of a model in the store.

        None where it has no adapter.
        """
        kept = self.about().get("training", {}).get("adapter")
        return str(kept["base"]) if kept is not None and self.has("adapter/adapter_config.json") else None


class Optimized(Artifact):
    """A model in the form a release carries: ``model.gguf`` or safetensors, tokenizer files, ``optimization.json``.

    Or its base as it is, with ``adapter``.
    """

    kind: ClassVar[str] = "optimized"

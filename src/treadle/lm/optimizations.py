"""The ways that need nothing but torch and the GGUF writer: fewer bits, fewer layers, fewer weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.core.errors import UserError
from treadle.lm.optimization import Material, Task

if TYPE_CHECKING:
    from treadle.lm.gguf import Kind

BESIDE = (".json", ".jinja", ".txt", ".model")  # what stands beside the weights


def copy_beside(model: Path, out: Path) -> None:
    """Config and tokenizer."""
    for path in sorted(model.iterdir()):
        if path.suffix in BESIDE:
            shutil.copyfile(path, out / path.name)


class Folder:
    """Base of the ways whose result is a Hugging Face folder."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[Task, ...]] = ("chat", "classify")
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    engine: ClassVar[str] = "transformers"
    settings: ClassVar[Mapping[str, Any]] = {"precision": "f32"}
    learns: ClassVar[bool] = False

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``: the model as it is."""
        copy_beside(material.model, out)
        for path in sorted(material.model.glob("*.safetensors")):
            shutil.copyfile(path, out / path.name)


class Unchanged(Folder):
    """The model as it was trained, in 32 bits, by torch. All others are compared with it."""


class Bfloat16(Folder):
    """Computed in 16 bits (bfloat16) by torch; gains where the processor multiplies them."""

    settings: ClassVar[Mapping[str, Any]] = {"precision": "bf16"}


class Gguf:
    """Base of the ways whose result is a GGUF, run by an engine that reads it."""

    version: ClassVar[int] = 1
    tasks: ClassVar[tuple[Task, ...]] = ("chat",)
    packages: ClassVar[tuple[str, ...]] = ("gguf", "numpy")
    engine: ClassVar[str] = "auto"
    settings: ClassVar[Mapping[str, Any]] = {}
    learns: ClassVar[bool] = False
    kind: ClassVar[Kind]

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        from treadle.lm.engines import serves_gguf
        from treadle.lm.gguf import write_gguf

        if not serves_gguf(self.engine):
            raise UserError("no engine that runs GGUF is installed; run: pip install 'treadle[openvino]'")
        copy_beside(material.model, out)
        write_gguf(material.model, out / "model.gguf", self.kind)


class GgufF16(Gguf):
    """GGUF weights of 16 bits."""

    kind: ClassVar[Kind] = "f16"


class GgufQ8(Gguf):
    """GGUF Q8_0: weights of 8 bits, 32 with a scale."""

    kind: ClassVar[Kind] = "q8_0"


class GgufQ8Exact(GgufQ8):
    """GGUF Q8_0, computed in 32 bits: no rounding beyond that of the weights."""

    settings: ClassVar[Mapping[str, Any]] = {"precision": "f32"}


class GgufQ4Nested(Gguf):
    """GGUF Q4_K: weights of 4 bits, 32 with a scale and a least value of 6 bits; matrices whose rows are no multiple of
    256 weights in 8 bits."""

    kind: ClassVar[Kind] = "q4_k"


class GgufQ4Scaled(Gguf):
    """GGUF Q4_1: weights of 4 bits, 32 with a scale and a least value."""

    kind: ClassVar[Kind] = "q4_1"


class GgufQ4(Gguf):
    """GGUF Q4_0: weights of 4 bits, 32 with a scale."""

    kind: ClassVar[Kind] = "q4_0"


class Magnitude30(Folder):
    """The 30 % smallest weights of each matrix made 0. The file holds as many numbers, and no engine here skips them:
    neither smaller nor faster, and said so."""

    share: ClassVar[float] = 0.3

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        from treadle.lm.pruning import prune_weights

        prune_weights(material.model, out, self.share)


class Magnitude50(Magnitude30):
    """The 50 % smallest weights of each matrix made 0; neither smaller nor faster, as with 30 %."""

    share: ClassVar[float] = 0.5


class FewerLayers(Folder):
    """A third of the layers taken out, evenly, and the rest trained again for a short while."""

    learns: ClassVar[bool] = True
    keep: ClassVar[float] = 2 / 3

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        from treadle.lm.pruning import drop_layers, recover

        cut = material.scratch / "cut"
        drop_layers(material.model, cut, self.keep)
        recover(cut, out, material)


class HalfTheLayers(FewerLayers):
    """Every second layer taken out, and the rest trained again for a short while."""

    keep: ClassVar[float] = 1 / 2


class FewerLayersQ8(FewerLayers):
    """A third of the layers taken out, the rest trained again, then GGUF Q8_0."""

    tasks: ClassVar[tuple[Task, ...]] = ("chat",)
    packages: ClassVar[tuple[str, ...]] = ("gguf", "numpy", "torch", "transformers")
    engine: ClassVar[str] = "auto"
    settings: ClassVar[Mapping[str, Any]] = {}

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        from dataclasses import replace

        shorter = material.scratch / "shorter"
        shorter.mkdir()
        super().write(material, shorter)
        GgufQ8().write(replace(material, model=shorter), out)

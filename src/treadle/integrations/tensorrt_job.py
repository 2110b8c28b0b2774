"""The target ``tensorrt``: the job of ``treadle export tensorrt`` for a release, to be run beside an NVIDIA card.

Never run here, where there is none. Each ``config.pbtxt`` names the release, so that a Triton server's model
configuration reports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from treadle.integrations.onnx_files import BUILD, write_tensorrt
from treadle.stages.deploy.packages import Package, beside_weights, trained_folder
from treadle.stages.deploy.targets import Content, Rendering


class TensorRT(Package):
    """ONNX files, the job that builds TensorRT engines of them, and Triton's configuration; never run here."""

    name: ClassVar[str] = "tensorrt"
    then: ClassVar[str] = f"beside an NVIDIA card run: sh {BUILD} && tritonserver --model-repository models"
    tool = "trtexec"

    def render(self, release: Rendering) -> Mapping[str, Content]:
        """As `Target.render`."""
        folder, building = trained_folder(release, self.name), release.scratch / self.name
        building.mkdir()
        write_tensorrt(folder, release.slug, building, release.digest)
        made = {path.relative_to(building).as_posix(): path for path in building.rglob("*") if path.is_file()}
        return {**made, **beside_weights(folder)}

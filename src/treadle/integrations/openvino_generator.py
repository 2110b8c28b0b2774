"""Ways of making a generator smaller that end in OpenVINO IR: NNCF rounds the matrices of a GGUF of 16 bits.

OpenVINO rounds activations to 8 bits as well while it multiplies, some of a row with one scale. The more share one, the
faster, and the more is lost where a few are far larger than the others; so those are evened out before
(``treadle.lm.smoothing``).
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.errors import MissingExtra, UserError
from treadle.integrations.openvino_classifier import require_nncf, require_openvino
from treadle.lm.architecture import config_to_gguf
from treadle.lm.engine_worker import first_line
from treadle.lm.model_folder import read_config
from treadle.lm.optimization import Material, Task
from treadle.lm.optimizations import copy_beside

_GGUF, _IR = "model.gguf", "openvino_model.xml"
_GROUP_4_BITS = 64  # weights with a scale
_GROUPS = range(192, 31, -1)  # activations with a scale; OpenVINO's own are 32, and the wider the more is lost


class OpenVinoInt8Rows:
    """OpenVINO IR with weights of 8 bits, a scale for each row, and activations of 8 in wider groups than GGUF's,
    evened out before (SmoothQuant) on conversations of the training split."""

    version: ClassVar[int] = 2
    tasks: ClassVar[tuple[Task, ...]] = ("chat",)
    packages: ClassVar[tuple[str, ...]] = (
        "gguf",
        "nncf",
        "numpy",
        "openvino",
        "openvino-genai",
        "torch",
        "transformers",
    )
    engine: ClassVar[str] = "openvino"
    settings: ClassVar[Mapping[str, Any]] = {}
    learns: ClassVar[bool] = True
    groups: ClassVar[Sequence[int]] = _GROUPS

    def write(self, material: Material, out: Path) -> None:
        """As ``Optimization.write``."""
        config = read_config(material.model)
        config_to_gguf(config, where=material.model)  # before the long work, what cannot come of it is said
        require_nncf()
        whole = require_openvino().Core().read_model(_graph(material))
        with redirect_stdout(io.StringIO()):  # NNCF draws its progress there
            graph = self.smaller(whole)
        # The processor's plugin takes from the file itself how it is to be run.
        graph.set_rt_info(str(self.group(config)), ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
        copy_beside(material.model, out)
        require_openvino().save_model(graph, out / _IR, compress_to_fp16=False)

    def smaller(self, graph: Any) -> Any:
        """The graph with its matrices rounded; the vector of each token as well."""
        nncf = require_nncf()
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)

    def group(self, config: Mapping[str, Any]) -> int:
        """How many activations share a scale: the most that divide the rows of every matrix, since OpenVINO does not
        round those that are not divided, and is slower there. OpenVINO's own where none does."""
        hidden = int(config.get("hidden_size") or 0)
        heads = int(config.get("num_attention_heads") or 1)
        attention = heads * int(config.get("head_dim") or hidden // heads)
        widths = math.gcd(hidden, attention, int(config.get("intermediate_size") or 0))
        return next((group for group in self.groups if widths % group == 0), _GROUPS[-1])


class OpenVinoInt4(OpenVinoInt8Rows):
    """OpenVINO IR with weights of 4 bits, 64 with a scale, and the vectors of tokens in 8."""

    groups: ClassVar[Sequence[int]] = (64, 32)  # those that divide the weights' own

    def smaller(self, graph: Any) -> Any:
        """As above."""
        nncf = require_nncf()
        narrower = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
        return nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=_GROUP_4_BITS,
            ratio=1.0,
            advanced_parameters=narrower,  # where a row is not divided by 64
        )


def _graph(material: Material) -> Path:
    """The model as IR with weights of 16 bits. OpenVINO GenAI makes one from a GGUF while it opens it."""
    from treadle.lm.gguf import write_gguf
    from treadle.lm.smoothing import smooth

    try:
        import openvino_genai
    except ModuleNotFoundError:
        raise MissingExtra("openvino-genai", extra="openvino") from None
    folder = material.scratch / "openvino"
    folder.mkdir()
    smooth(material, material.scratch / "smooth")
    write_gguf(material.scratch / "smooth", folder / _GGUF, "f16")
    shutil.rmtree(material.scratch / "smooth")  # four bytes a weight
    try:
        openvino_genai.LLMPipeline(str(folder / _GGUF), "CPU", enable_save_ov_model=True)
    except RuntimeError as error:
        raise UserError(f"{material.model}: OpenVINO cannot take it from a GGUF ({first_line(error)})") from None
    if not (folder / _IR).is_file():
        raise UserError(f"{material.model}: OpenVINO made no graph of this architecture; try: gguf-q8_0")
    return folder / _IR

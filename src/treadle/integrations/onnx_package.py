"""The target ``onnx``: a release's model as ONNX files that need no Treadle, with tokenizer, prompt and an example.

The weights are those that were trained, in 32 bits. ``onnx.json`` names the release and holds what the example needs to
know, and what came out when outputs were compared with those of the model that torch computes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.errors import UserError
from treadle.integrations import onnx_example
from treadle.integrations.onnx_export import OPSET, TOLERANCE, Checked, export, power_above, shape_of
from treadle.lm.model_folder import longest, read_config
from treadle.stages.deploy.packages import Package, beside_weights, trained_folder
from treadle.stages.deploy.targets import Content, Rendering

PACKAGE, EXAMPLE = "onnx.json", "example.py"
_NEEDED = ("onnxruntime", "tokenizers", "numpy")
_PLACE = "\u2063the text\u2063"  # that no template has


class OnnxPackage(Package):
    """A model as ONNX with its tokenizer, what its check found, and an example that runs it by ONNX Runtime alone."""

    name: ClassVar[str] = "onnx"
    then: ClassVar[str] = 'run: pip install -r requirements.txt && python example.py "A text"'

    def render(self, release: Rendering) -> Mapping[str, Content]:
        """As `Target.render`."""
        folder = trained_folder(release, self.name)
        shape = shape_of(read_config(folder), folder)
        building = release.scratch / "onnx"
        building.mkdir()
        found = export(folder, building)
        files: dict[str, Content] = {path.name: path for path in building.iterdir()}
        files |= beside_weights(folder)
        told = {
            "release": release.digest,
            "model": release.model,
            "weights": release.spec.model,
            "shape": shape,
            "max_length": longest(folder),
            "checked": _outcome(found),
            **_asked(release, folder, shape),
        }
        files[PACKAGE] = (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()
        files[EXAMPLE] = onnx_example.TEXTS[shape].encode()
        files["requirements.txt"] = "".join(f"{name}=={version(name)}\n" for name in _NEEDED).encode()
        return files


def _outcome(found: Checked) -> dict[str, Any]:
    """What the comparison found."""
    told = {"against": "torch", "opset": OPSET, "inputs": found.inputs, "tolerance": TOLERANCE}
    return {**told, "worst_at_most": power_above(found.worst)}


def _asked(release: Rendering, folder: Path, shape: str) -> dict[str, Any]:
    """What turns a text into what such a model reads, and what it writes into a text."""
    from treadle.lm.tokenizer import ChatTokenizer

    if shape in ("classifier", "encoder"):
        return {}
    spec, tokenizer = release.spec, ChatTokenizer.load(folder)
    written = {"stop": sorted(tokenizer.eos_ids), "max_tokens": int(spec.settings.get("max_tokens", 256))}
    if tokenizer.sources is not None:
        before = spec.system_prompt or tokenizer.sources.prefix
        return {"before": before, "begin": _begin(folder), **written}
    said = [{"role": "system", "content": spec.system_prompt}] if spec.system_prompt else []
    before, found, after = tokenizer.render([*said, {"role": "user", "content": _PLACE}]).partition(_PLACE)
    if not found:
        raise UserError(f"render onnx: the chat template of {release.model} does not show what a user says")
    return {"before": before, "after": after, **written}


def _begin(folder: Path) -> list[int]:
    """What an encoder-decoder's answer begins with, as `lm.source_generation` has it."""
    model = read_config(folder)
    said = read_config(folder, "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    named = (said.get("decoder_start_token_id"), model.get("decoder_start_token_id"), said.get("bos_token_id"))
    found = [each for each in (*named, model.get("pad_token_id")) if isinstance(each, int)][:1]
    forced = said.get("forced_bos_token_id")
    return [*found, *([forced] if isinstance(forced, int) else [])]

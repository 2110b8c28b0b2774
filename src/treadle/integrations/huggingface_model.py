"""The target ``huggingface``: a model folder that transformers opens and the Hugging Face hub takes, with its card.

The weights are those that were trained; what the release serves may be an optimized form of them, and the card says so.
Metadata of the card: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from treadle.core.errors import UserError
from treadle.lm.base_model import hub_id
from treadle.lm.model_folder import read_config
from treadle.lm.source_encoder import writes_targets
from treadle.record.version import NO_BASE_LICENSE, NOT_RECORDED
from treadle.stages.deploy.packages import Package, beside_weights, trained_folder, weights
from treadle.stages.deploy.targets import Content, Rendering

CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*")
_PIPELINES = {
    "chat": "text-generation",
    "classify": "text-classification",
    "tag": "token-classification",
    "qa": "question-answering",
    "extract": "question-answering",
    "summarize": "summarization",
    "translate": "translation",
    "embed": "sentence-similarity",
}
_OPENERS = {
    "chat": "AutoModelForCausalLM",
    "classify": "AutoModelForSequenceClassification",
    "tag": "AutoModelForTokenClassification",
    "extract": "AutoModelForQuestionAnswering",
    "embed": "AutoModel",
}
# What the hub knows, of https://huggingface.co/docs/hub/repositories-licenses
_LICENSES = frozenset(
    re.findall(
        r"\S+",
        "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0"
        " cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0"
        " cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0"
        " cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1"
        " eupl-1.2 gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa ofl-1.1 osl-3.0 pddl"
        " postgresql unlicense wtfpl zlib gemma llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 openrail",
    )
)


class HuggingFace(Package):
    """A model folder for transformers and the Hugging Face hub, with a model card; uploaded by `hf upload`."""

    name: ClassVar[str] = "huggingface"
    then: ClassVar[str] = "run: hf upload NAME/MODEL ."
    tool = "hf"

    def __init__(self, *, license: str = "", datasets: tuple[str, ...] = ()) -> None:  # noqa: A002 (the hub's word)
        """``license`` is an identifier that the hub knows, the base model's where it is left out; ``datasets`` are ids
        of data sets on the hub that the model learned from."""
        if license and license not in _LICENSES | {"other", "unknown"}:
            raise UserError(
                f"target huggingface: license {license!r}: expected an identifier of the hub, such as apache-2.0, or"
                " other (https://huggingface.co/docs/hub/repositories-licenses)"
            )
        wrong = [name for name in datasets if not _REPOSITORY.fullmatch(name)]
        if wrong:
            raise UserError(f"target huggingface: datasets {wrong[0]!r}: expected ids of the hub, as stanfordnlp/imdb")
        self._license, self._datasets = license, datasets

    def render(self, release: Rendering) -> Mapping[str, Content]:
        """As `Target.render`."""
        folder = trained_folder(release, self.name)
        files: dict[str, Content] = {**weights(folder), **beside_weights(folder), CARD: self._card(release, folder)}
        config = read_config(folder)
        if older := _rope_of_older(config):
            files["config.json"] = (json.dumps({**config, **older}, indent=2, sort_keys=True) + "\n").encode()
        return files

    def _card(self, release: Rendering, folder: Path) -> bytes:
        spec, card = release.spec, release.card
        told = yaml.safe_dump(self._metadata(release, folder), sort_keys=False, allow_unicode=True, width=1000)
        text = card.text if card else f"# {spec.name}\n\nNo gate judged this release, so it was not measured here.\n"
        if self._base(release) is None:  # a place on somebody's disk is nobody else's business
            text = text.replace(spec.base_model["name"], Path(spec.base_model["name"]).name)
        return f"---\n{told}---\n\n{text.rstrip()}\n\n{_about(release, folder)}".encode()

    def _metadata(self, release: Rendering, folder: Path) -> dict[str, Any]:
        """The card's front matter, whose keys the hub knows; those under ``treadle`` are ours."""
        spec, base = release.spec, self._base(release)
        scores = release.card.scores.get("model", {}) if release.card else {}
        told: dict[str, Any] = _license(self._license or spec.base_model["license"])
        if base is not None:
            told |= {"base_model": base, "base_model_relation": "finetune"}
        library = "sentence-transformers" if (folder / "modules.json").is_file() else "transformers"
        told |= {"library_name": library, "pipeline_tag": _pipeline(release), "tags": ["treadle"]}
        if self._datasets:
            told["datasets"] = list(self._datasets)
        if scores:
            told["metrics"] = list(scores)
            told["model-index"] = [{"name": release.model, "results": [_result(release, scores)]}]
        told["treadle"] = {"release": release.digest, "model": spec.model, "dataset": spec.dataset}
        return told

    def _base(self, release: Rendering) -> str | None:
        base = release.spec.base_model
        return hub_id(base["name"], base.get("origin", ""))


def _rope_of_older(config: Mapping[str, Any]) -> dict[str, Any]:
    """A rotary embedding's base, scaling and part where transformers before 5 reads them: without, it takes its own
    10,000 and says nothing. One that differs by layer is not said there."""
    rope = config.get("rope_parameters") or {}
    if "rope_theta" not in rope or "rope_theta" in config:
        return {}
    apart = ("rope_theta", "partial_rotary_factor")
    scaled = {name: value for name, value in rope.items() if name not in apart}
    usual = scaled.get("rope_type", "default") == "default"
    found = {name: rope[name] for name in apart if name in rope}
    return {**found, **({} if usual else {"rope_scaling": scaled})}


def _license(name: str) -> dict[str, str]:
    """As the hub has it: an identifier it knows, or ``other`` and the name."""
    if name.lower() in ("", "unknown", NOT_RECORDED, NO_BASE_LICENSE):
        return {"license": "unknown"}
    plain = re.sub(r"-(only|or-later)$", "", name.lower())
    if plain in _LICENSES or plain == "other":
        return {"license": plain}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")}


def _pipeline(release: Rendering) -> str:
    spec = release.spec
    return _PIPELINES.get(spec.task) or _PIPELINES.get(spec.asking) or "text-generation"


def _result(release: Rendering, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What was measured on the test split, with its intervals."""
    spec, metrics = release.spec, []
    for name, score in scores.items():
        value, low, high = (float(f"{score[key]:.6g}") for key in ("value", "low", "high"))
        level = f"{100 * score['level']:g} %"
        shown = f"{name}, {level} interval [{low:.4g}, {high:.4g}], {score['n']} items"
        args = {"low": low, "high": high, "level": score["level"], "items": score["n"]}
        metrics.append({"type": name, "value": value, "name": shown, "args": args})
    data = {"name": f"{spec.name}, test split", "type": release.slug, "split": "test", "revision": spec.dataset}
    return {"task": {"type": _pipeline(release)}, "dataset": data, "metrics": metrics}


def _about(release: Rendering, folder: Path) -> str:
    """How to open it, and what it is beside the release."""
    spec = release.spec
    kind = "AutoModelForSeq2SeqLM" if writes_targets(read_config(folder)) else _OPENERS.get(spec.asking, "AutoModel")
    served = spec.optimization.get("format")
    form = f"the release serves them as {served}" if served else "the release serves them as they are"
    lines = [
        "## How to open it",
        "",
        "```python",
        f"from transformers import {kind}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained(".")  # or the name it has on the hub',
        f'model = {kind}.from_pretrained(".")',
        "```",
        "",
        "## Where it comes from",
        "",
        f"- Release: {release.model}, `{release.digest}`",
        f"- Weights: as trained, `{spec.model}`; {form}",
        "- `treadle.json` holds the BLAKE3 digest of every file here",
        "",
    ]
    return "\n".join(lines)

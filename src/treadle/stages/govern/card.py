"""The model card: what a release is, what it was made from, how good it is, and what is not recorded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.run_record import RunRecord
from treadle.record.model_card import ModelCard
from treadle.record.record import Record
from treadle.record.release import Release, ReleaseSpec
from treadle.record.version import FROM_NOTHING, NO_BASE_LICENSE, NOT_RECORDED
from treadle.text.dataset import DATASET_FILE, Dataset

_UNKNOWN = NOT_RECORDED
_STEP = "govern.write_card"


def card_of(record: Record, release: Release) -> ModelCard | None:
    """What was last written of a release; None where it was not judged, or the card was erased since."""
    for run in record.runs.find(step=_STEP, status="done"):
        if run.inputs.get("release") == release.digest:
            return _read(record, run)
    return None


def _read(record: Record, run: RunRecord) -> ModelCard | None:
    """A card with what it was written from."""
    (written,), gates, judged = run.outputs.values(), run.inputs["gates"], run.inputs["evaluations"]
    if not all(record.store.has(digest) for digest in (written, gates, *judged)):
        return None
    with Artifact(written, record.store).open("card.md") as file:
        text = file.read().decode()
    scores = {
        name: Artifact(digest, record.store).read_json("scores.json")["scores"]
        for name, digest in zip(run.parameters["names"], judged, strict=True)
    }
    return ModelCard(text, scores, Artifact(gates, record.store).read_json("licenses.json"))


def card(
    spec: ReleaseSpec,
    dataset: Dataset,
    gates: list[dict[str, Any]],
    scores: dict[str, dict[str, dict[str, Any]]],
    licenses: dict[str, int],
    loss: dict[str, float] | None,
    purpose: str | None,
    documents: Collection[str] = (),
) -> str:
    """Markdown, with every artifact by its digest. ``documents``: ids of those that the model was made from."""
    base = spec.base_model
    examples = dataset.document_ids()
    beyond = len(set(documents).difference(examples))
    counts = dataset.counts()
    lines = [
        f"# {spec.name}",
        "",
        f"**Intended use.** {purpose or _UNKNOWN}",
        "",
        "## What it is",
        "",
        f"- Task: {spec.task}",
        f"- Model: `{spec.model}`",
        _base(base),
        f"- System prompt: {spec.system_prompt or 'none'}",
        f"- Served by: {spec.engine}; {_optimization(spec.optimization.get('format'), loss)}",
        "",
        *_made_from(base, len(documents)),
        f"- Dataset: `{dataset.digest}`, {len(examples):,} documents",
        *([f"- Learned from besides: {beyond:,} documents that no example is made from now"] if beyond else []),
        "- Examples: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        "- Licenses of the documents: "
        + (", ".join(f"{name} ({count:,})" for name, count in sorted(licenses.items())) or _UNKNOWN),
        *_outside(base, dataset.read_json(DATASET_FILE)),
        "",
        "## How good it is",
        "",
        *_table(scores),
        "",
        "Intervals are 95 %, by bootstrap over the test items; no group of the test split was trained on.",
        "",
        "## Gates",
        "",
        *(f"- {'passed' if gate['passed'] else '**refused**'}: {gate['gate']}: {gate['detail']}" for gate in gates),
        "",
        "## Limits",
        "",
        "- Likeness of an answer to a document is not proof that the document caused it.",
        "- Bias and fairness: not measured, unless a gate above says so.",
        "",
    ]
    return "\n".join(lines)


def _base(base: dict[str, str]) -> str:
    if base["name"] == FROM_NOTHING:
        return f"- Base model: none; from nothing: {base['origin']}, tokenizer `{base['digest']}`"
    return f"- Base model: {base['name']}, `{base['digest']}`, license {base['license']}, from {base['origin']}"


def _outside(base: dict[str, str], described: dict[str, Any]) -> list[str]:
    """What is not known because it came from outside. ``described``: the dataset's own description."""
    written = described.get("synthetic", 0) + described.get("rejected", 0)
    lines = [f"- A teacher wrote answers of {written:,} examples; what it learned from is not recorded here"]
    lines = lines if written else []
    if base["name"] != FROM_NOTHING:
        told = "not recorded; it came from outside and is pinned by its digest"
        return [*lines, f"- What the base model was trained on: {told}"]
    if base["license"] != NO_BASE_LICENSE:
        told = f"not recorded; it came from outside, license {base['license']}"
        return [*lines, f"- What its tokenizer was made from: {told}"]
    return lines or ["- Nothing in it came from outside: all that it learned from are the documents above"]


def _made_from(base: dict[str, str], documents: int) -> list[str]:
    """The heading, and for a model from outside what is not known of it."""
    if base["name"] != NOT_RECORDED:
        return ["## What it was made from", ""]
    learned = f", later {documents:,} documents from here" if documents else ""
    title = "## What it was made from" if documents else "## What it was judged on"
    return [title, "", f"- Trained on: {NOT_RECORDED}; it is, or began as, a model from outside{learned}"]


def _optimization(form: str | None, loss: dict[str, Any] | None) -> str:
    if form is None or loss is None:
        return "weights as trained"
    if "metric" in loss:
        return f"optimized by {form}, which loses {loss['loss']:.2%} of {loss['metric']} on {loss['items']:.0f} items"
    return f"quantized to {form}, perplexity {loss['loss']:+.2%} on {loss['items']:.0f} items"


def _table(scores: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    metrics = list(next(iter(scores.values()), {}))
    rows = ["| evaluated | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    for name, values in scores.items():
        cells = [f"{v['value']:.3g} [{v['low']:.3g}, {v['high']:.3g}]" for v in values.values()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows

"""The model in the form that is served where no way is named: a GGUF that cost little enough, or as it was trained."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, cast

from treadle.core.digest import canonical_json
from treadle.core.errors import Refused
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import answer_all, load_metrics
from treadle.lm.model import Model, Optimized
from treadle.record.report import Report
from treadle.stages.deploy.settings import QuantizeSettings
from treadle.text.dataset import Dataset

if TYPE_CHECKING:
    from treadle.lm.gguf import Kind

_KEPT = (".json", ".jinja", ".txt", ".model")  # what stands beside the weights


@step(name="deploy.optimize", version=2, packages=("gguf", "numpy"))
def optimize(model: Model, *, format: str | None, run: Run) -> Optimized:  # noqa: A002 (the setting's name)
    """The model in the form that is served: a GGUF of the chosen format, or as it is."""
    source = model.path()
    with run.create(Optimized) as optimized:
        for path in sorted(source.iterdir()):
            if path.suffix in _KEPT or (format is None and path.suffix == ".safetensors"):
                shutil.copyfile(path, optimized.path / path.name)
        if format is not None:
            from treadle.lm.gguf import write_gguf

            write_gguf(source, optimized.path / "model.gguf", cast("Kind", format))
        optimized.add_documents(model.document_ids())
        before = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        after = sum(
            path.stat().st_size for path in optimized.path.iterdir() if path.suffix in (".gguf", ".safetensors")
        )
        run.summary(bytes_before=before, bytes_after=after)
        return optimized.commit()


@step(
    name="deploy.measure",
    version=1,
    packages=("openvino-genai", "tokenizers", "torch", "transformers"),
    tolerance=0.05,
)
def measure(
    model: Model,
    optimized: Optimized,
    dataset: Dataset,
    *,
    engine: str,
    system_prompt: str | None,
    items: int,
    run: Run,
) -> Report:
    """What making the model smaller cost: perplexity before and after, on the same items, by the serving engine."""
    metrics = load_metrics(["perplexity"], run)
    asked: dict[str, Any] = {"engine": engine, "scoring": engine, "system_prompt": system_prompt}
    examples = dataset.examples("test")[:items]
    before, after = (
        answer_all(folder, examples, metrics, run, **asked).scores(metrics, seed=run.seed)["perplexity"].value
        for folder in (model.path(), optimized.path())
    )
    run.summary(perplexity_before=before, perplexity_after=after, perplexity_loss=after / before - 1)
    found = {"perplexity_before": before, "perplexity_after": after, "loss": after / before - 1, "items": len(examples)}
    with run.create(Report) as report:
        (report.path / "loss.json").write_bytes(canonical_json(found))
        report.add_documents(dataset.split_document_ids("test"))
        return report.commit()


def check_loss(report: Report, quantize: QuantizeSettings) -> None:
    """``Refused`` when it cost more than the file allows, so it is never published."""
    found = report.read_json("loss.json")
    if found["loss"] > quantize.max_loss:
        raise Refused(
            f"deploy.quantize: {quantize.format} raises perplexity from {found['perplexity_before']:.2f} to"
            f" {found['perplexity_after']:.2f} ({found['loss']:+.1%}), more than max_loss {quantize.max_loss:.1%};"
            " raise the budget, or choose format: f16"
        )

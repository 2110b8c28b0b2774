"""Ways of making a model smaller or faster, each a step: made, judged on the release's own evaluation, and timed.

What a way costs is the change of one figure against the unchanged model, paired on the same items: of a generator the
relative rise in perplexity, of a classifier the fall in accuracy. It is judged by the engine and the settings that will
serve it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.driver import Driver
from treadle.core.errors import Refused
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import EvaluationReport, commit, load_metrics
from treadle.lm import optimization
from treadle.lm.model import Model, Optimized
from treadle.lm.optimization import Material
from treadle.record.report import Report
from treadle.text.dataset import Dataset, Example

METRICS = {"chat": "perplexity", "classify": "accuracy"}
ITEMS = {"chat": 150, "classify": 1000}
_WEIGHTS = (".gguf", ".safetensors", ".onnx", ".bin")
_AT_ONCE, _TOKENS = 4, 48  # answers under way, and tokens of each, while a generator is timed
_SECONDS = 2.0  # of processor time at least, while a classifier is timed
_TEXTS = 256

Verdict = Literal["kept", "refused"]


@dataclass(frozen=True, slots=True)
class Asked:
    """How the ways of one model are compared. ``limit`` is the most that one may lose."""

    task: str
    limit: float
    items: int
    system_prompt: str | None = None

    @property
    def metric(self) -> str:
        """By which they are judged."""
        return METRICS[self.task]


@dataclass(frozen=True)
class Point:
    """One way, measured. ``loss`` with its 95 % interval is relative for perplexity and absolute for accuracy; ``size``
    in bytes of weights; ``speed`` in tokens or texts a second of processor time, ``pace`` by the clock."""

    name: str
    engine: str
    settings: Mapping[str, Any]
    optimized: Optimized
    evaluation: EvaluationReport
    timing: Report
    value: float
    loss: float
    low: float
    high: float
    items: int
    size: int
    speed: float
    pace: float
    memory: int
    verdict: Verdict

    def public(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        for name in ("optimized", "evaluation", "timing"):
            found[name] = getattr(self, name).digest
        return {**found, "settings": dict(self.settings)}


def measured(
    driver: Driver, name: str, model: Model, dataset: Dataset, tests: Dataset, asked: Asked, base: Point | None
) -> Point:
    """A way made, judged and timed, or remembered, and compared with ``base``, the unchanged model (None: this is it).

    ``UserError`` where it cannot be done.
    """
    way = optimization.load(name, driver.folder)
    version = optimization.code_version(name, driver.folder)
    optimized = driver.run(shrink, model, dataset if way.learns else None, way=name, way_version=version)
    how: dict[str, Any] = {
        "task": asked.task,
        "engine": way.engine,
        "engine_settings": dict(way.settings),
        "system_prompt": asked.system_prompt,
    }
    evaluation = driver.run(judge, optimized, tests, **how, items=asked.items, way_version=version)
    timing = driver.run(clock, optimized, tests, **how, way_version=version)
    loss, low, high = _loss(evaluation, base.evaluation if base else evaluation, asked)
    times = timing.read_json("speed.json")
    return Point(
        name=name,
        engine=times["engine"],
        settings=way.settings,
        optimized=optimized,
        evaluation=evaluation,
        timing=timing,
        value=evaluation.value(asked.metric),
        loss=loss,
        low=low,
        high=high,
        items=int(evaluation.scores()[asked.metric]["n"]),
        size=weight_bytes(optimized),
        speed=times["per_cpu_second"],
        pace=times["per_second"],
        memory=times["memory_bytes"],
        verdict="kept" if loss <= asked.limit else "refused",
    )


def check(point: Point, asked: Asked, where: str) -> None:
    """``Refused`` when it lost more than the limit, so it is never published."""
    if point.verdict == "refused":
        raise Refused(
            f"{where}: {point.name} loses {point.loss:.2%} [{point.low:.2%}, {point.high:.2%}] of {asked.metric} on"
            f" {point.items} items, more than the limit of {asked.limit:.2%}; choose another way (treadle optimize"
            " lists them), or raise the limit"
        )


def weight_bytes(optimized: Artifact) -> int:
    """Bytes of the files that hold weights."""
    return sum(entry.size for entry in optimized.entries() if entry.path.endswith(_WEIGHTS))


def _loss(evaluation: EvaluationReport, base: EvaluationReport, asked: Asked) -> tuple[float, float, float]:
    """What is lost, with its interval."""
    from treadle.evals.labels import accuracy
    from treadle.evals.likelihood import LogLikelihood
    from treadle.evals.metric import as_metric

    metric = LogLikelihood() if asked.task == "chat" else as_metric("accuracy", accuracy)
    found = evaluation.items().against(base.items(), metric, seed=17)
    if asked.task == "chat":  # nats per token, of which perplexity is the exponential
        return math.expm1(-found.difference), math.expm1(-found.high), math.expm1(-found.low)
    return -found.difference + 0.0, -found.high + 0.0, -found.low + 0.0


@step(name="deploy.shrink", version=1, tolerance=0.05)
def shrink(model: Model, dataset: Dataset | None, *, way: str, way_version: str, seed: int, run: Run) -> Optimized:
    """The model in the form that one way of optimizing gives it. The dataset is that of ways that train again."""
    chosen = optimization.load(way, run.folder)
    taught = dataset.examples("train") if dataset is not None else []
    material = Material(
        model=model.path(),
        scratch=run.scratch,
        conversations=[example.messages for example in taught if example.messages and example.answer],
        labeled=[(example.text, str(example.label)) for example in taught if example.label is not None],
        seed=seed,
        progress=lambda done, total, unit: run.progress(done, total, unit, way),
    )
    with run.create(Optimized) as optimized:
        chosen.write(material, optimized.path)
        optimized.add_documents(model.document_ids())
        optimized.add_documents(name for example in taught for name in example.documents)
        made = optimized.commit()
    run.summary(bytes_before=weight_bytes(model), bytes_after=weight_bytes(made))
    return made


@step(name="deploy.judge", version=1, tolerance=0.05)
def judge(
    optimized: Optimized,
    dataset: Dataset,
    *,
    task: str,
    engine: str,
    engine_settings: dict[str, Any],
    system_prompt: str | None,
    items: int,
    way_version: str,
    run: Run,
) -> EvaluationReport:
    """One form of the model on the test split, by the engine and the settings that would serve it."""
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from, run_chat, run_classifier
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.tokenizer import ChatTokenizer

    folder, chosen = optimized.path(), items_from(dataset.examples("test")[:items])
    metrics = load_metrics([METRICS[task]], run)
    with BlockingEngine(engine, folder, settings=engine_settings) as opened:
        if task == "chat":
            outputs = run_chat(
                opened,
                ChatTokenizer.load(folder),
                chosen,
                metrics=metrics,
                system_prompt=system_prompt or "",
                on_progress=lambda done, total: run.progress(done, total, "items", "scoring"),
            )
        else:
            outputs = run_classifier(opened, chosen, on_progress=lambda done, all_: run.progress(done, all_, "items"))
    return commit(run, Evaluation("model", tuple(chosen), tuple(outputs)), metrics, dataset.split_document_ids("test"))


@step(name="deploy.clock", version=1, tolerance=0.5)
def clock(
    optimized: Optimized,
    dataset: Dataset,
    *,
    task: str,
    engine: str,
    engine_settings: dict[str, Any],
    system_prompt: str | None,
    way_version: str,
    run: Run,
) -> Report:
    """How fast one form of the model is on this machine: tokens or texts a second of processor time, in a worker
    process as it would be served, four answers under way or sixteen texts together."""
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.processor_time import Stopwatch
    from treadle.lm.tokenizer import ChatTokenizer

    folder, examples = optimized.path(), dataset.examples("test")
    with BlockingEngine(engine, folder, settings=engine_settings) as opened:
        if task == "chat":
            prompts = _prompts(ChatTokenizer.load(folder), examples, system_prompt)
            opened.generate_all(_requests(prompts[:1], 8))
            with Stopwatch() as watch:
                opened.generate_all(_requests(prompts, _TOKENS))
                done = len(prompts) * _TOKENS
        else:
            texts, done = [example.text for example in examples[:_TEXTS]], 0
            opened.classify(texts[:16])
            with Stopwatch() as watch:
                while watch.processor() < _SECONDS:
                    opened.classify(texts)
                    done += len(texts)
        memory, name = opened.stats().memory_bytes, opened.name
    found = {
        "engine": name,
        "per_cpu_second": done / watch.cpu_seconds,
        "per_second": done / watch.seconds,
        "memory_bytes": memory,
        "unit": "tokens" if task == "chat" else "texts",
        "measured": done,
    }
    run.summary(per_cpu_second=found["per_cpu_second"], per_second=found["per_second"], memory_bytes=memory)
    with run.create(Report) as report:
        (report.path / "speed.json").write_bytes(canonical_json(found))
        report.add_documents(dataset.split_document_ids("test"))
        return report.commit()


def _prompts(tokenizer: Any, examples: Sequence[Example], system_prompt: str | None) -> list[tuple[int, ...]]:
    from treadle.lm.conversation import with_system_prompt

    messages = [with_system_prompt(example.messages[:-1], system_prompt or "") for example in examples[:_AT_ONCE]]
    return [tuple(tokenizer.encode_chat(each)) for each in messages]


def _requests(prompts: Sequence[tuple[int, ...]], tokens: int) -> list[Any]:
    from treadle.lm.engine import GenerateRequest

    return [GenerateRequest(str(n), ids, max_tokens=tokens, ignore_eos=True) for n, ids in enumerate(prompts)]


@step(name="deploy.weigh", version=1)
def weigh(evaluation: EvaluationReport, base: EvaluationReport, *, task: str, run: Run) -> Report:
    """What a way of optimizing cost, against the unchanged model on the same items, for gates and cards to read."""
    asked = Asked(task, 0.0, 0)
    loss, low, high = _loss(evaluation, base, asked)
    found = {"metric": asked.metric, "loss": loss, "low": low, "high": high}
    found |= {"before": base.value(asked.metric), "after": evaluation.value(asked.metric)}
    run.summary(**{name: cast("float", value) for name, value in found.items() if name != "metric"})
    with run.create(Report) as report:
        items = evaluation.scores()[asked.metric]["n"]
        (report.path / "loss.json").write_bytes(canonical_json({**found, "items": items}))
        report.add_documents(evaluation.document_ids())
        return report.commit()


@step(name="deploy.draw_frontier", version=1)
def draw_frontier(
    evaluations: tuple[EvaluationReport, ...], timings: tuple[Report, ...], *, drawn: dict[str, Any], run: Run
) -> Report:
    """The picture of size, speed and quality of all ways that were measured, and the same as a table."""
    from treadle.stages.deploy.frontier import page_of

    with run.create(Report) as report:
        (report.path / "frontier.html").write_text(page_of(drawn), encoding="utf-8")
        (report.path / "frontier.json").write_bytes(canonical_json(drawn))
        for each in evaluations:
            report.add_documents(each.document_ids())
        return report.commit()

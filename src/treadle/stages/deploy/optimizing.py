"""Ways of making a model smaller or faster, each a step: made, judged on the release's own evaluation, and timed.

What a way costs is the change of one figure against the unchanged model, paired on the same items: of a generator the
relative rise in perplexity, of a classifier the fall in accuracy. It is judged by the engine and the settings that will
serve it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, cast

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.driver import Driver
from treadle.core.errors import Refused, UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import EvaluationReport, commit, load_metrics
from treadle.lm import optimization
from treadle.lm.model import Model, Optimized
from treadle.lm.optimization import UNCHANGED, Material
from treadle.record.report import Report
from treadle.stages.deploy.frontier import frontier, page_of
from treadle.text.dataset import Dataset, Example

if TYPE_CHECKING:
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.processor_time import Stopwatch

METRICS = {"chat": "perplexity", "classify": "accuracy"}
ITEMS = {"chat": 150, "classify": 1000}
_WEIGHTS = (".gguf", ".safetensors", ".onnx", ".bin")
_AT_ONCE, _TOKENS = 4, 48  # answers under way, and tokens of each, while a generator is timed
_SECONDS = 2.0  # of processor time at least, while a classifier is timed
_TEXTS = 256

Verdict = Literal["kept", "refused"]


def items_for(task: str) -> int:
    """On how many test items the ways of a task's models are compared; ``UserError`` for a task that has no ways."""
    if task not in ITEMS:
        raise UserError(f"optimize: there are no ways yet for task {task}; expected {' or '.join(ITEMS)}")
    return ITEMS[task]


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
    weighed: Report
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

    @classmethod
    def read(
        cls,
        name: str,
        settings: Mapping[str, Any],
        made: tuple[Optimized, EvaluationReport, Report, Report],
        limit: float,
    ) -> Point:
        """From the four artifacts that measuring leaves: the model, its evaluation, its times, its loss."""
        optimized, evaluation, timing, weighed = made
        lost, times = weighed.read_json("loss.json"), timing.read_json("speed.json")
        return cls(
            name=name,
            engine=times["engine"],
            settings=settings,
            optimized=optimized,
            evaluation=evaluation,
            timing=timing,
            weighed=weighed,
            value=lost["after"],
            loss=lost["loss"],
            low=lost["low"],
            high=lost["high"],
            items=lost["items"],
            size=weight_bytes(optimized),
            speed=times["per_cpu_second"],
            pace=times["per_second"],
            memory=times["memory_bytes"],
            verdict="kept" if lost["loss"] <= limit else "refused",
        )

    def public(self) -> dict[str, Any]:
        """As JSON."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        artifacts = {name: found[name].digest for name in ("optimized", "evaluation", "timing", "weighed")}
        return {**found, **artifacts, "settings": dict(self.settings)}


@dataclass(frozen=True)
class Way:
    """A way as it was found by its name; ``version`` changes with its code and the packages it names."""

    name: str
    version: str
    engine: str
    settings: Mapping[str, Any]
    learns: bool

    @classmethod
    def find(cls, name: str, driver: Driver) -> Way:
        """``UserError`` when there is none of that name."""
        found, version = optimization.load(name, driver.folder), optimization.code_version(name, driver.folder)
        return cls(name, version, found.engine, dict(found.settings), bool(getattr(found, "learns", False)))


def judged(
    driver: Driver, way: Way, model: Model, dataset: Dataset, tests: Dataset, asked: Asked
) -> tuple[Optimized, EvaluationReport, Report]:
    """The model as a way makes it, its evaluation, and its times; remembered where they were made before."""
    taught = dataset if way.learns else None
    prompt = asked.system_prompt if way.learns else None
    optimized = driver.run(shrink, model, taught, way=way.name, way_version=way.version, system_prompt=prompt)
    evaluation, timing = driver.run(
        judge,
        optimized,
        tests,
        task=asked.task,
        engine=way.engine,
        engine_settings=way.settings,
        system_prompt=asked.system_prompt,
        items=asked.items,
        way_version=way.version,
    )
    return optimized, evaluation, timing


def measured(
    driver: Driver, name: str, model: Model, dataset: Dataset, tests: Dataset, asked: Asked, base: Point | None
) -> Point:
    """A way made, judged and timed, or remembered, and compared with ``base``, the unchanged model (None: this is it).

    ``UserError`` where it cannot be done.
    """
    way = Way.find(name, driver)
    optimized, evaluation, timing = judged(driver, way, model, dataset, tests, asked)
    weighed = driver.run(weigh, evaluation, base.evaluation if base else evaluation, task=asked.task)
    return Point.read(name, way.settings, (optimized, evaluation, timing, weighed), asked.limit)


def check(weighed: Report, name: str, asked: Asked) -> None:
    """``Refused`` when it lost more than the limit, so it is never published."""
    lost = weighed.read_json("loss.json")
    if lost["loss"] > asked.limit:
        raise Refused(
            f"deploy.optimization: {name} loses {lost['loss']:.2%} [{lost['low']:.2%}, {lost['high']:.2%}] of"
            f" {lost['metric']} on {lost['items']} items, more than max_loss {asked.limit:.2%}; choose another way"
            " (treadle optimize measures them), or raise max_loss"
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
        return math.expm1(-found.difference) + 0.0, math.expm1(-found.high) + 0.0, math.expm1(-found.low) + 0.0
    return -found.difference + 0.0, -found.high + 0.0, -found.low + 0.0


@step(name="deploy.shrink", version=2, tolerance=0.05)
def shrink(
    model: Model,
    dataset: Dataset | None,
    *,
    way: str,
    way_version: str,
    system_prompt: str | None,
    seed: int,
    run: Run,
) -> Optimized:
    """The model in the form that one way of optimizing gives it. The dataset is that of ways that train again."""
    chosen = optimization.load(way, run.folder)
    taught = dataset.examples("train") if dataset is not None else []
    talks = [example for example in taught if example.messages and example.answer]
    material = Material(
        model=model.path(),
        scratch=run.scratch,
        conversations=[example.messages for example in talks],
        tools=[example.tools for example in talks],
        system_prompt=system_prompt,
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
) -> tuple[EvaluationReport, Report]:
    """One form of the model on the test split, by the engine and the settings that would serve it, in a process of its
    own; and how fast it is there: tokens or texts a second of processor time, four answers under way or a batch of
    texts together. Times are no metrics of the run: they are apart when it is done again."""
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from, run_chat, run_classifier
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.tokenizer import ChatTokenizer

    folder, examples = optimized.path(), dataset.examples("test")
    chosen, metrics = items_from(examples[:items]), load_metrics([METRICS[task]], run)

    def progress(done: int, total: int) -> None:
        run.progress(done, total, "items")

    with BlockingEngine(engine, folder, settings=engine_settings) as opened:
        if task == "chat":
            tokenizer = ChatTokenizer.load(folder)
            prompts = _prompts(tokenizer, examples, system_prompt)
            asked: dict[str, Any] = {"metrics": metrics, "system_prompt": system_prompt or "", "on_progress": progress}
            times = _time_answers(opened, prompts)
            outputs = run_chat(opened, tokenizer, chosen, **asked)
        else:
            outputs = run_classifier(opened, chosen, on_progress=progress)
            times = _time_labels(opened, [example.text for example in examples[:_TEXTS]])
        times |= {"engine": opened.name, "memory_bytes": opened.stats().memory_bytes}
    run.log(per_cpu_second=times["per_cpu_second"], per_second=times["per_second"])
    documents = dataset.split_document_ids("test")
    with run.create(Report) as report:
        (report.path / "speed.json").write_bytes(canonical_json(times))
        report.add_documents(documents)
        timing = report.commit()
    return commit(run, Evaluation("model", tuple(chosen), tuple(outputs)), metrics, documents), timing


def _time_answers(engine: BlockingEngine, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    from treadle.lm.processor_time import Stopwatch

    engine.generate_all(_requests(prompts[:1], 8))
    with Stopwatch() as watch:
        engine.generate_all(_requests(prompts, _TOKENS))
    return _times("tokens", len(prompts) * _TOKENS, watch)


def _time_labels(engine: BlockingEngine, texts: Sequence[str]) -> dict[str, Any]:
    from treadle.lm.processor_time import Stopwatch

    done = 0
    with Stopwatch() as watch:
        while watch.processor() < _SECONDS:
            engine.classify(texts)
            done += len(texts)
    return _times("texts", done, watch)


def _times(unit: str, done: int, watch: Stopwatch) -> dict[str, Any]:
    return {
        "unit": unit,
        "measured": done,
        "per_cpu_second": done / watch.cpu_seconds,
        "per_second": done / watch.seconds,
    }


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


def drawn(
    ref: str, asked: Asked, digest: str, dataset: str, points: Sequence[Point], left_out: Sequence[str]
) -> dict[str, Any]:
    """What ``treadle optimize --json`` says, and what the picture is drawn from."""
    command = f"treadle optimize {ref} --items {asked.items} --loss {asked.limit:g} --try "
    rows = [{**point.public(), "command": command + point.name} for point in points]
    return {
        "ref": ref,
        "digest": digest,
        "dataset": dataset,
        "items": points[0].items,
        "metric": asked.metric,
        "limit": asked.limit,
        "unit": "tokens" if asked.task == "chat" else "texts",
        "unchanged": UNCHANGED,
        "points": rows,
        "frontier": sorted(frontier(rows)),
        "left_out": list(left_out),
    }


@step(name="deploy.draw_frontier", version=2)
def draw_frontier(
    model: Model,
    dataset: Dataset,
    optimized: tuple[Optimized, ...],
    evaluations: tuple[EvaluationReport, ...],
    timings: tuple[Report, ...],
    weighed: tuple[Report, ...],
    *,
    ref: str,
    task: str,
    limit: float,
    items: int,
    names: list[str],
    settings: list[dict[str, Any]],
    left_out: list[str],
    run: Run,
) -> Report:
    """The picture of size, speed and quality of all ways that were measured, and the same as a table."""
    made = zip(optimized, evaluations, timings, weighed, strict=True)
    points = [Point.read(*each, limit) for each in zip(names, settings, made, strict=True)]
    shown = drawn(ref, Asked(task, limit, items), model.digest, dataset.digest, points, left_out)
    with run.create(Report) as report:
        (report.path / "frontier.html").write_text(page_of(shown), encoding="utf-8")
        (report.path / "frontier.json").write_bytes(canonical_json(shown))
        for each in evaluations:
            report.add_documents(each.document_ids())
        return report.commit()

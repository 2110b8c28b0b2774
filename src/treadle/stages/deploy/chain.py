"""Optimize the model, measure what that cost, bundle a release, and let it answer its first questions over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.evals.task import Asking, Task
from treadle.lm.engines import loads_adapters, serves_gguf
from treadle.lm.model import Model, Optimized
from treadle.lm.optimization import UNCHANGED
from treadle.record.record import Record
from treadle.record.recording import Recording
from treadle.record.release import Release
from treadle.record.report import Report
from treadle.stages.deploy.adapters import unmerged
from treadle.stages.deploy.bundling import bundle, for_gateway
from treadle.stages.deploy.optimizing import Asked, Way, check, items_for, judged, weigh, weight_bytes
from treadle.stages.deploy.quantizing import check_loss, measure, optimize
from treadle.stages.deploy.serving import opener
from treadle.stages.deploy.settings import UPSTREAM, DeploySettings, OptimizationSettings
from treadle.text.dataset import Dataset


@dataclass(frozen=True)
class Deployed:
    """The release of this turn, and what making it smaller cost (None where it is as it was trained)."""

    release: Release
    loss: Report | None

    def public(self) -> dict[str, Any]:
        """As JSON."""
        spec = self.release.read()
        return {
            "release": self.release.digest,
            "model": spec.model,
            "engine": spec.engine,
            "optimization": {**spec.optimization, **(self.loss.read_json("loss.json") if self.loss else {})},
        }


def deploy(
    driver: Driver,
    settings: DeploySettings,
    recording: Recording,
    record: Record,
    dataset: Dataset,
    tests: Dataset,
    model: Model,
    task: Task,
) -> Deployed:
    """Optimize, measure, bundle, and let the release answer its first questions over HTTP."""
    if settings.adapter == "separate":
        made = _beside_base(driver, settings, model)
    elif settings.optimization is not None:
        made = _by_way(driver, settings, settings.optimization, model, dataset, tests, task)
    else:
        made = _quantized(driver, settings, model, tests, task)
    release = driver.run(
        bundle,
        made.optimized,
        model,
        dataset,
        name=record.name,
        task=task.name,
        asking=task.asking,
        engine=made.engine,
        engine_settings=made.settings | _told(settings, made.engine),
        system_prompt=settings.system_prompt,
        max_tokens=settings.max_tokens,
        gateway=for_gateway(settings, recording, driver.folder),
        format=made.format,
    )
    if settings.smoke_requests:
        driver.act(
            "deploy.smoke",
            lambda run: smoke(run, record, release, tests, recording, settings.smoke_requests),
            inputs=(release, tests),
            requests=settings.smoke_requests,
        )
    if not driver.planning:
        driver.listener.say(_line(release, made.optimized, made.loss))
    return Deployed(release, made.loss)


def _told(settings: DeploySettings, engine: str) -> dict[str, Any]:
    """What the file says to the engine that the release is served by."""
    if settings.engine_settings and engine != settings.engine:
        raise UserError(
            f"deploy.engine_settings: they are of {settings.engine}, and deploy.optimization is served by {engine};"
            f" set deploy.engine: {engine}, or leave either out"
        )
    return settings.engine_settings


@dataclass(frozen=True)
class _Made:
    """The model in the form that is served, by what, and what it cost."""

    optimized: Optimized
    engine: str
    settings: dict[str, Any]
    format: str | None
    loss: Report | None


def _by_way(
    driver: Driver,
    settings: DeploySettings,
    chosen: OptimizationSettings,
    model: Model,
    dataset: Dataset,
    tests: Dataset,
    task: Task,
) -> _Made:
    """By one of the ways that ``treadle optimize`` measures; what it measured costs nothing again."""
    asked = Asked(task.name, chosen.max_loss, chosen.items or items_for(task.name), settings.system_prompt)
    way = Way.find(chosen.way, driver)
    optimized, evaluation, _ = judged(driver, way, model, dataset, tests, asked)
    _, before, _ = judged(driver, Way.find(UNCHANGED, driver), model, dataset, tests, asked)
    loss = driver.run(weigh, evaluation, before, task=task.name)
    if not driver.planning:
        check(loss, chosen.way, asked)
    return _Made(optimized, way.engine, dict(way.settings), chosen.way, loss)


def _beside_base(driver: Driver, settings: DeploySettings, model: Model) -> _Made:
    """As its base, and the adapter apart."""
    if not loads_adapters(settings.engine):
        raise UserError(
            f"deploy.adapter: engine {settings.engine} loads no adapters; choose transformers or vllm, or set adapter:"
            " merged"
        )
    return _Made(unmerged(driver, model), settings.engine, {}, None, None)


def _quantized(driver: Driver, settings: DeploySettings, model: Model, tests: Dataset, task: Task) -> _Made:
    """As a GGUF, or as it is."""
    chosen = settings.quantize if task.gguf else None
    if settings.upstream is not None:
        if chosen is not None and "quantize" in settings.model_fields_set:
            driver.listener.say("quantize is left out: with engine upstream, what answers is what the servers run")
        optimized = driver.run(optimize, model, format=None)
        return _Made(optimized, UPSTREAM, settings.upstream.model_dump(mode="json"), None, None)
    if chosen is not None and not serves_gguf(settings.engine):
        driver.listener.say(
            f"quantize is left out: engine {settings.engine} runs no GGUF here; treadle doctor says more"
        )
        chosen = None
    optimized = driver.run(optimize, model, format=chosen.format if chosen else None)
    loss = None
    if chosen is not None:
        asked = {"engine": settings.engine, "system_prompt": settings.system_prompt, "items": chosen.items}
        loss = driver.run(measure, model, optimized, tests, **asked)
        if not driver.planning:
            check_loss(loss, chosen)
    return _Made(optimized, settings.engine, {}, chosen.format if chosen else None, loss)


def smoke(
    run: Run, record: Record, release: Release, dataset: Dataset, recording: Recording, count: int
) -> dict[str, Artifact]:
    """Start a server on a free port, put test questions to it, and check that each answer came from this release."""
    import os

    from treadle.serve.server import serving
    from treadle.stages.deploy.client import memory_of, put_questions

    questions = dataset.examples("test")[:count]
    key = os.environ.get("TREADLE_API_KEY")
    with serving(opener(record, release, recording)) as url:
        answered = put_questions(
            url,
            key,
            cast("Asking", release.read().asking),
            questions,
            lambda done: run.progress(done, count, "requests"),
        )
        memory = memory_of(url, key)
    wrong = [answer for answer in answered if answer.release not in (release.digest, None)]
    too_long = sum(answer.too_long for answer in answered)
    failed = [answer for answer in answered if answer.status != 200 and not answer.too_long]
    run.summary(requests=len(answered), failed=len(failed), too_long=too_long, memory_bytes=memory)
    if answered and too_long == len(answered):
        raise UserError(f"deploy: all {too_long} test questions are longer than the model can read; raise its context")
    if wrong or failed:
        raise UserError(
            f"deploy: {len(failed)} of {len(answered)} test requests failed and {len(wrong)} came from another"
            " release; the release is not used"
        )
    return {}


def _line(release: Release, optimized: Optimized, report: Report | None) -> str:
    weights = weight_bytes(optimized) / 1e6
    found = report.read_json("loss.json") if report else None
    if found and found.get("metric") == "accuracy":
        loss = f", {found['loss']:.2%} of accuracy lost on {found['items']} items"
    else:
        loss = f", perplexity {found['loss']:+.2%} on {found['items']} items" if found else ""
    return f"release {release.digest[:11]}: {weights:.0f} MB{loss}; treadle serve answers with it once it is champion"

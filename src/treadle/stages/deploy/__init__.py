"""Deploy: make the model small without making it worse, bundle a release, try it over real HTTP, serve it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator

from treadle.core.artifacts import Artifact
from treadle.core.config import Settings
from treadle.core.digest import canonical_json
from treadle.core.driver import Driver
from treadle.core.duration import Duration, seconds_of
from treadle.core.errors import Refused, UserError, nearest
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import answer_all, load_metrics
from treadle.evals.task import Asking, Task
from treadle.lm.adapter import FOLDER as ADAPTER
from treadle.lm.adapter import described as described_adapter
from treadle.lm.engines import AUTO, check_settings, loads_adapters, serves_gguf
from treadle.lm.model import Model, Optimized
from treadle.lm.optimization import UNCHANGED
from treadle.lm.upstream_settings import UpstreamSettings
from treadle.record.record import Record
from treadle.record.recording import Recording
from treadle.record.release import Release, ReleaseSpec
from treadle.record.report import Report
from treadle.record.shadow import ShadowSettings
from treadle.record.slo import Slo
from treadle.stages.deploy.adapters import unmerged
from treadle.stages.deploy.optimizing import Asked, Way, check, items_for, judged, weigh, weight_bytes
from treadle.stages.deploy.serving import opener
from treadle.text.dataset import Dataset

if TYPE_CHECKING:
    from pathlib import Path

    from treadle.lm.gguf import Kind

Side = Literal["in", "out"]
_UPSTREAM = "upstream"  # the engine
_STICKY = ("user", "key")
_HEADER = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)+")  # with a hyphen, or a word that is misspelled would be one
_KEPT = (".json", ".jinja", ".txt", ".model")  # what stands beside the weights


class QuantizeSettings(Settings):
    """How the weights are made smaller, and what that may cost."""

    format: Literal["q8_0", "q4_k", "q4_1", "q4_0", "f16"] = Field(
        "q8_0", description="GGUF weights of 8, 4 or 16 bits; q4_k is the best of 4"
    )
    max_loss: float = Field(0.01, ge=0, description="relative rise in perplexity above which it is refused")
    items: int = Field(60, ge=8, description="test items that the rise is measured on")


class OptimizationSettings(Settings):
    """One of the ways that `treadle optimize` measures, in place of `quantize`, and what it may cost."""

    way: str = Field(description="gguf-q8_0, onnx, or another of the optimizations that are installed, or module:Class")
    max_loss: float = Field(
        0.01, ge=0, description="rise in perplexity (relative) or fall in accuracy above which it is refused"
    )
    items: int | None = Field(None, ge=8, description="test items that it is measured on; 150 chat, 1000 classify")


class PriceSettings(Settings):
    """What a million tokens cost, for budgets and the record."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code")
    prompt: float = Field(ge=0, le=1e6, description="a million tokens read")
    completion: float = Field(ge=0, le=1e6, description="a million tokens written")


class DeploySettings(Settings):
    """What a release is, and where it answers."""

    engine: str = Field(
        "auto", description="auto, openvino, transformers, upstream (servers elsewhere), or another installed engine"
    )
    upstream: UpstreamSettings | None = Field(None, description="for engine: upstream; part of the release")
    engine_settings: dict[str, str | bool | int | float] = Field(
        default_factory=dict, description="of the engine that is named, such as memory: 0.8; part of the release"
    )
    threads: int | None = Field(
        None, ge=1, le=4096, description="of the engine; all processors by default, fewer leave a training the rest"
    )
    quantize: QuantizeSettings | None = QuantizeSettings()
    optimization: OptimizationSettings | None = None
    adapter: Literal["merged", "separate"] = Field(
        "merged",
        description="of develop.method lora: in the weights, or beside the base, for engines transformers and vllm",
    )
    system_prompt: str | None = Field(None, description="said before every conversation that has no system message")
    host: str = Field("127.0.0.1", description="address that treadle serve listens on")
    port: int = Field(8000, ge=0, le=65535, description="0 takes a free one")
    max_tokens: int = Field(256, ge=1, description="of an answer, unless the request says less")
    price: PriceSettings | None = Field(None, description="part of the release; what keys with a budget in money pay")
    guardrails: dict[Side, list[str | dict[str, Any]]] = Field(
        default_factory=dict,
        description="what requests (in) and answers (out) are looked through for; part of the release",
    )
    max_in_flight: int = Field(256, ge=1, le=100_000, description="requests held at once; beyond them 429 is answered")
    timeout: Duration = Field("10m", description="for a whole answer; one that takes longer ends with an error")
    slo: Slo | None = Field(None, description="what answers are to keep: the server holds no more requests than that")
    when_database_is_away: Literal["refuse", "degrade"] = Field(
        "refuse", description="refuse: no key is good then; degrade: keys known already are, their use counted later"
    )
    degrade_for: Duration = Field("10m", description="how long at most, and thus a key that was revoked meanwhile")
    hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]] = Field(
        default_factory=list,
        description="names by which a server without a key may be asked, beside localhost and addresses",
    )
    sticky: str = Field(
        "user",
        max_length=100,
        description="whose requests stay with one release while a canary is tried: of a user, a key, or a header's"
        " value (its name, such as x-session-id)",
    )
    fallback: str | None = Field(
        None, min_length=1, description="release that answers what the champion cannot: @previous, model@v1 or b3:..."
    )
    shadow: ShadowSettings | None = Field(None, description="a release that gets copies of requests, shown to nobody")
    also_serve: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        max_length=64,
        description="folders of other projects for whose models treadle serve answers as well, by this one's keys",
    )
    smoke_requests: int = Field(60, ge=0, description="test questions a new release answers before it is judged")

    @property
    def degrade_seconds(self) -> float:
        """How long known keys are good without their database."""
        return seconds_of(self.degrade_for) if self.when_database_is_away == "degrade" else 0.0

    @property
    def local_engine(self) -> str:
        """The engine that evaluates here, where the model is."""
        return "auto" if self.engine == _UPSTREAM else self.engine

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """Servers elsewhere run what they run; nothing here is made smaller for them."""
        if (self.engine == _UPSTREAM) != (self.upstream is not None):
            raise ValueError("engine: upstream and the section upstream go together; give both, or neither")
        if self.engine_settings and self.engine in (AUTO, _UPSTREAM):
            raise ValueError(
                f"engine_settings are of one engine, and {self.engine} is none; name it, as engine: openvino"
            )
        if self.upstream is not None and self.optimization is not None:
            raise ValueError("optimization is for engines here; leave it out with engine: upstream")
        if self.adapter == "separate":
            shrunk = "quantize" if self.quantize and "quantize" in self.model_fields_set else "optimization"
            if shrunk == "quantize" or self.optimization is not None:
                raise ValueError(
                    f"adapter: separate keeps the base as it is; leave out {shrunk}, or set adapter: merged"
                )
            if self.upstream is not None:
                raise ValueError("adapter: separate is for engines here; leave it out with engine: upstream")
        return self

    @field_validator("sticky")
    @classmethod
    def _known_sticky(cls, value: str) -> str:
        """A header's name in small letters."""
        if value in _STICKY:
            return value
        if _HEADER.fullmatch(value):
            return value.lower()
        raise ValueError(
            f"expected user, key, or a header's name with a hyphen in it, such as x-session-id; got {value!r};"
            f"{nearest(value, _STICKY)}"
        )

    @field_validator("guardrails")
    @classmethod
    def _known_guardrails(cls, value: dict[Side, list[str | dict[str, Any]]]) -> dict[Side, list[str | dict[str, Any]]]:
        """Before anything is trained for it; the project's own are looked at when the cycle is planned."""
        from treadle.serve.guardrail_settings import described

        for side, each in ((side, each) for side, listed in value.items() for each in listed):
            if ":" not in (each if isinstance(each, str) else next(iter(each), "")):
                try:
                    described({side: [each]}, None)
                except UserError as error:
                    raise ValueError(str(error)) from None
        return value


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
    check_deployment(settings)
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
        gateway=_for_gateway(settings, recording, driver.folder),
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


def check_deployment(settings: DeploySettings) -> None:
    """``UserError`` for settings that the engine does not have, before anything is trained for it."""
    if settings.engine_settings:
        check_settings(settings.engine, settings.engine_settings)


def _told(settings: DeploySettings, engine: str) -> dict[str, Any]:
    """What the file says to the engine that the release is served by."""
    if settings.engine_settings and engine != settings.engine:
        raise UserError(
            f"deploy.engine_settings: they are of {settings.engine}, and deploy.optimization is served by {engine};"
            f" set deploy.engine: {engine}, or leave either out"
        )
    return settings.engine_settings


def _for_gateway(settings: DeploySettings, recording: Recording, folder: Path | None) -> dict[str, Any]:
    """What the gateway does with a release's requests; part of the release. ``UserError`` for a wrong guardrail.

    How requests are recorded and how many are held go along for where it is served without the project's file.
    """
    found: dict[str, Any] = {}
    if settings.price is not None:
        found["price"] = settings.price.model_dump()
    if any(settings.guardrails.values()):
        from treadle.serve.guardrail_settings import described

        found["guardrails"] = described(settings.guardrails, folder)
    if rules := recording.unusual():
        found["recording"] = rules
    if settings.slo is not None:
        found["slo"] = settings.slo.model_dump(exclude_none=True)
    if "max_in_flight" in settings.model_fields_set:
        found["max_in_flight"] = settings.max_in_flight
    if "timeout" in settings.model_fields_set:
        found["timeout"] = settings.timeout
    return found


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
        return _Made(optimized, _UPSTREAM, settings.upstream.model_dump(mode="json"), None, None)
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
            _check_loss(loss, chosen)
    return _Made(optimized, settings.engine, {}, chosen.format if chosen else None, loss)


def _line(release: Release, optimized: Optimized, report: Report | None) -> str:
    weights = weight_bytes(optimized) / 1e6
    found = report.read_json("loss.json") if report else None
    if found and found.get("metric") == "accuracy":
        loss = f", {found['loss']:.2%} of accuracy lost on {found['items']} items"
    else:
        loss = f", perplexity {found['loss']:+.2%} on {found['items']} items" if found else ""
    return f"release {release.digest[:11]}: {weights:.0f} MB{loss}; treadle serve answers with it once it is champion"


@step(version=2, packages=("gguf", "numpy"))
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


@step(version=1, packages=("openvino-genai", "tokenizers", "torch", "transformers"), tolerance=0.05)
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


def _check_loss(report: Report, quantize: QuantizeSettings) -> None:
    """``Refused`` when it cost more than the file allows, so it is never published."""
    found = report.read_json("loss.json")
    if found["loss"] > quantize.max_loss:
        raise Refused(
            f"deploy.quantize: {quantize.format} raises perplexity from {found['perplexity_before']:.2f} to"
            f" {found['perplexity_after']:.2f} ({found['loss']:+.1%}), more than max_loss {quantize.max_loss:.1%};"
            " raise the budget, or choose format: f16"
        )


@step(version=3)
def bundle(
    optimized: Optimized,
    model: Model,
    dataset: Dataset,
    *,
    name: str,
    task: str,
    asking: str,
    engine: str,
    engine_settings: dict[str, Any],
    system_prompt: str | None,
    max_tokens: int,
    gateway: dict[str, Any],
    format: str | None,  # noqa: A002 (the setting's name)
    run: Run,
) -> Release:
    """Everything that answers, in one folder."""
    about = model.about()
    optimization: dict[str, Any] = {"format": format} if format else {}
    if engine_settings:
        optimization["settings"] = engine_settings
    spec = ReleaseSpec(
        name=name,
        task=task,
        asking=asking,
        model=model.digest,
        dataset=dataset.digest,
        base_model=about["base_model"],
        engine=engine,
        system_prompt=system_prompt,
        settings={"max_tokens": max_tokens, **gateway},
        optimization=optimization,
    )
    with run.create(Release) as release:
        shutil.copytree(optimized.path(), release.path / "model", ignore=shutil.ignore_patterns("documents.ids"))
        for path in (release.path / "model").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if (release.path / "model" / ADAPTER).is_dir():
            (release.path / "model" / ADAPTER).rename(release.path / ADAPTER)
            spec.optimization["adapter"] = described_adapter(release.path / ADAPTER, release.path / "model")
        (release.path / "release.json").write_bytes(canonical_json(spec.to_json()))
        release.add_documents(model.document_ids())
        return release.commit()


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

"""Govern: gates before promotion, a person's word where the file asks for it, and a card that says what the model
is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from treadle.core.config import Settings
from treadle.core.digest import canonical_json
from treadle.core.driver import Driver
from treadle.core.ledger import Fact
from treadle.core.place import about
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.settings import check
from treadle.core.steps import step
from treadle.evals.report import EvaluationReport
from treadle.record.gate import GateResult, judged
from treadle.record.record import Record
from treadle.record.release import Release
from treadle.record.report import Report
from treadle.record.version import Version
from treadle.stages.govern.evidence import UNRECORDED, Evidence
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset


class GovernSettings(Settings):
    """What must hold before a model answers users."""

    purpose: str | None = Field(None, description="what the model is for, and what not; printed on its card")
    gates: list[dict[str, dict[str, Any]]] = Field(default_factory=list, description="rules, each by name")
    approval: Literal["none", "one", "two"] = Field("none", description="how many people must agree")

    @model_validator(mode="after")
    def _one_each(self) -> GovernSettings:
        for gate in self.gates:
            if len(gate) != 1:
                raise ValueError("a gate is one name with its settings, as in `- license: {allow: [MIT]}`")
        return self


Check = Callable[..., GateResult]


@dataclass(frozen=True)
class Governed:
    """What the gates said of a candidate, and the decision: ``judged`` before there is one, then as ``Conclusion``
    has it; ``planned`` when nothing was judged."""

    decision: str
    results: tuple[GateResult, ...] = ()
    card: Report | None = None
    reason: str = ""

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {"decision": self.decision, "reason": self.reason, "gates": [result.public() for result in self.results]}


def govern(
    driver: Driver,
    settings: GovernSettings,
    record: Record,
    corpora: tuple[Corpus, ...],
    dataset: Dataset,
    evaluations: dict[str, EvaluationReport],
    release: Release,
    loss: Report | None,
    candidate: Version | None,
) -> Governed:
    """Judge the candidate and write its card; what follows from it, `promotion.conclude` decides. ``corpora``: all
    that the dataset's documents may come from."""
    checks = [_checked(gate, f"govern.gates[{place}]", driver) for place, gate in enumerate(settings.gates)]
    names = list(evaluations)
    report = driver.run(
        judge,
        release,
        corpora,
        dataset,
        tuple(evaluations.values()),
        names=names,
        gates=settings.gates,
        versions=checks,
    )
    card = driver.run(
        write_card, release, dataset, report, loss, tuple(evaluations.values()), names=names, purpose=settings.purpose
    )
    if driver.planning or report.pending or candidate is None:
        return Governed("planned")
    results = tuple(GateResult(**result) for result in report.read_json("gates.json"))
    _write_down(record, release, candidate, report, results)
    for result in results:
        driver.listener.say(f"{result.gate} {'ok' if result.passed else 'NO'}: {result.detail}")
    return Governed("judged", results, card)


def champion_release(record: Record) -> Release | None:
    """The release of the champion; None before the first promotion or after its erasure."""
    served = record.versions.served() if record.versions.alias("model", "champion") else None
    return Release(served, record.store) if served and record.store.has(served) else None


def release_of(record: Record, version: Version) -> Release | None:
    """The release in which a model version was last judged; None when there is none, or it was erased."""
    row = judged(record.ledger, version.digest)
    if row is None or not record.store.has(row.release):
        return None
    return Release(row.release, record.store)


@step(version=3)
def judge(
    release: Release,
    corpora: tuple[Corpus, ...],
    dataset: Dataset,
    evaluations: tuple[EvaluationReport, ...],
    *,
    names: list[str],
    gates: list[dict[str, dict[str, Any]]],
    versions: list[str],
    run: Run,
) -> Report:
    """Every gate over the evidence. ``versions`` carries the code of the checks into the step's key.

    Licenses are those of the dataset's documents and of what else the model learned from: its tokenizer and its
    pretraining read more than the examples.
    """
    learned = set(dataset.document_ids())
    held = learned | set(release.document_ids())
    found = {
        document.id: document.license or UNRECORDED
        for corpus in corpora
        for batch in corpus.documents()
        for document in batch
        if document.id in held
    }
    licenses = dict(Counter([*found.values(), *(UNRECORDED for _ in learned - found.keys())]))
    evidence = Evidence(
        dict(zip(names, evaluations, strict=True)), licenses, release.read().base_model["license"], run.folder
    )
    results = []
    for gate in gates:
        name, settings = next(iter(gate.items()))
        gate_function: Check = load("treadle.checks", name, run.folder).value
        results.append(gate_function(evidence, **settings).public())
    with run.create(Report) as report:
        (report.path / "gates.json").write_bytes(canonical_json(results))
        (report.path / "licenses.json").write_bytes(canonical_json(licenses))
        report.add_documents(held)
        run.summary(passed=sum(result["passed"] for result in results), gates=len(results))
        return report.commit()


@step(version=2)
def write_card(
    release: Release,
    dataset: Dataset,
    gates: Report,
    loss: Report | None,
    evaluations: tuple[EvaluationReport, ...],
    *,
    names: list[str],
    purpose: str | None,
    run: Run,
) -> Report:
    """The model card: what it is, what it was made from, how good it is, what is not known."""
    from treadle.stages.govern.card import card

    with run.create(Report) as report:
        shown = {name: each.scores() for name, each in zip(names, evaluations, strict=True)}
        licenses = gates.read_json("licenses.json")
        cost = loss.read_json("loss.json") if loss else None
        text = card(
            release.read(),
            dataset,
            gates.read_json("gates.json"),
            shown,
            licenses,
            cost,
            purpose,
            set(release.document_ids()),
        )
        (report.path / "card.md").write_text(text)
        report.add_documents({*dataset.document_ids(), *release.document_ids()})
        return report.commit()


def _checked(gate: dict[str, dict[str, Any]], where: str, driver: Driver) -> str:
    name, settings = next(iter(gate.items()))
    with about(where, name):
        plugin = load("treadle.checks", name, driver.folder)
        check(plugin.value, settings, where=f"{where} ({name})", provided=("evidence",))
    return plugin.version or str(getattr(plugin.value, "version", 1))


def _write_down(
    record: Record, release: Release, candidate: Version, report: Report, results: tuple[GateResult, ...]
) -> None:
    before = judged(record.ledger, candidate.digest)
    if before is not None and before.report == report.digest and before.release == release.digest:
        return
    body = {
        "release": release.digest,
        "model": candidate.digest,
        "report": report.digest,
        "passed": all(result.passed for result in results),
        "gates": {result.gate: result.passed for result in results},
    }
    record.ledger.append(Fact("gate", body), sync=True)

"""A judge's word on two models of this project, and how far it agrees with people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.config import load
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.evals.judging import JudgeSettings, JudgeTemplate, load_template
from treadle.evals.report import EvaluationReport
from treadle.lm.base_model import fingerprint
from treadle.lm.endpoint_address import check_endpoint
from treadle.lm.model import Model
from treadle.project import Project
from treadle.stages.develop.judging import judge_answers, judge_people
from treadle.stages.prepare.quality import gather_examples

_WHERE = "judge"


@dataclass(frozen=True)
class Judge:
    """A judge that was asked for: its settings, its words, and the model where it is one of this project."""

    settings: JudgeSettings
    template: JudgeTemplate
    model: Model | None
    told: dict[str, Any]


def find_judge(project: Project, path: Path) -> Judge:
    """The judge in a file; ``UserError`` for one that could not judge, before anything runs."""
    if not path.is_file():
        raise UserError(f"judge: there is no file {path}; expected YAML with model, and url where it is a server")
    settings = load(path, JudgeSettings)
    template = load_template(project.folder / settings.template if settings.template else None)
    told: dict[str, Any] = settings.model_dump(exclude={"template", "people"}, exclude_none=True)
    if settings.url is not None:
        check_endpoint(settings.url, settings.api_key, _WHERE)
        return Judge(settings, template, None, told)
    if settings.version is None:
        return Judge(settings, template, None, {**told, "fingerprint": fingerprint(str(settings.model))})
    version = project.record.versions.resolve(settings.version)
    if version is None or version.kind != Model.kind or not project.record.store.has(version.digest):
        raise UserError(
            f"judge: version: {settings.version!r} is no version of a model that is here; expected model@v1"
        )
    return Judge(settings, template, Model(version.digest, project.record.store), told)


def judged(
    project: Project, driver: Driver, judge: Judge, ours: EvaluationReport, theirs: EvaluationReport
) -> dict[str, Any]:
    """As JSON: how often ours wins, what could not be read, and the agreement with people where the file has some."""
    how = {"judge": judge.told, "template": judge.template.model_dump()}
    report = driver.run(judge_answers, ours, theirs, judge.model, **how)
    found = _public(report)
    if judge.settings.people is not None:
        suppression = project.record.erasures.suppression()
        people = gather_examples(driver, judge.settings.people, suppression, "judge.people")
        found["people"] = _public(driver.run(judge_people, people, judge.model, **how))
    return found


def _public(report: EvaluationReport) -> dict[str, Any]:
    about = report.read_json("scores.json")
    told = {name: about[name] for name in ("judge", "verdicts", "unparsed", "swayed")}
    return {"evaluation": report.digest, **told, "metrics": report.scores()}

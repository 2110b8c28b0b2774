"""The cycle on one page: eight stages in order, what each takes and gives, and what closes the loop.

    stage     takes                              gives
    collect   sources, suppression list          corpus
    prepare   corpus                             dataset, its tokens, index, profile, report
    develop   dataset, base model                model; evaluations of it, of baselines and of the champion
    track     dataset, model                     versions: dataset/NAME@v1, model/NAME@v1
    deploy    model, evaluation                  release, tried over real HTTP
    monitor   interactions with the release      latency, errors, drift; alerts
    govern    evaluations, release, gates        model card, decision; @champion moves
    improve   feedback on interactions           what is due, and why: the next turn starts here

The same page, driven in planning mode, runs nothing and says what would run and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from treadle.core.driver import Driver, Listener
from treadle.core.errors import UserError, nearest
from treadle.lm.base_model import MissingModel, fingerprint
from treadle.project import Project
from treadle.record.erasure import SuppressionList
from treadle.stages.collect import collect
from treadle.stages.deploy import Deployed, deploy
from treadle.stages.develop import Developed, develop
from treadle.stages.govern import Governed, govern
from treadle.stages.improve import Improved, improve
from treadle.stages.monitor import Monitored, monitor
from treadle.stages.prepare import Prepared, Tokenizing, prepare
from treadle.stages.track import Tracked, standing, track
from treadle.text.corpus import Corpus

STAGES = ("collect", "prepare", "develop", "track", "deploy", "monitor", "govern", "improve")


class Turn:
    """One turn of the cycle: what each stage gave, as far as it got."""

    corpus: Corpus
    prepared: Prepared
    developed: Developed
    tracked: Tracked
    deployed: Deployed
    monitored: Monitored
    governed: Governed
    improved: Improved

    def __init__(self, project: Project, driver: Driver) -> None:
        self.project = project
        self.driver = driver

    def stages(self) -> Iterator[str]:
        """Name a stage, then do it. This is the loop."""
        file, record, driver = self.project.file, self.project.record, self.driver
        prompt = file.deploy.system_prompt
        base = self._base_fingerprint()
        recording = file.monitor.recording(file.govern.purpose)

        yield "collect"
        suppression: SuppressionList | None = record.erasures.suppression()
        self.corpus = collect(driver, file.collect, suppression)

        yield "prepare"
        tokenizing = Tokenizing(file.develop.base_model, base, file.develop.max_length, prompt)
        self.prepared = prepare(driver, file.prepare, self.corpus, file.task, tokenizing)
        dataset = self.prepared.dataset

        yield "develop"
        self.developed = develop(
            driver,
            file.develop,
            dataset,
            self.prepared.tokens,
            task=file.task,
            fingerprint=base,
            system_prompt=prompt,
            engine=file.deploy.engine,
            standing=standing(record.versions),
        )
        model, evaluations = self.developed.model, self.developed.evaluations

        yield "track"
        self.tracked = track(driver, record.versions, dataset, model)

        yield "deploy"
        self.deployed = deploy(driver, file.deploy, recording, record, dataset, model, file.task)
        release = self.deployed.release

        yield "monitor"
        self.monitored = monitor(driver, file.monitor, record, release, self.prepared.profile)

        yield "govern"
        cleaned, loss, candidate = self.prepared.cleaned, self.deployed.loss, self.tracked.model
        self.governed = govern(driver, file.govern, record, cleaned, dataset, evaluations, release, loss, candidate)

        yield "improve"
        self.improved = improve(driver, file.improve, record)

    def _base_fingerprint(self) -> str:
        """The base model's; a plan does without where its package is not installed yet."""
        try:
            return fingerprint(self.project.file.develop.base_model)
        except MissingModel:
            if self.driver.planning:
                return ""
            raise

    def go(self, until: str | None = None) -> None:
        """Run the stages, or as far as ``until``. Raises what a stage raises; what was done before it stays done."""
        if until is not None and until not in STAGES:
            raise UserError(f"there is no stage {until!r};{nearest(until, STAGES)}")
        last = None
        for stage in self.stages():
            if last is not None and last == until:
                break
            self.driver.stage(stage)
            last = stage

    @property
    def ok(self) -> bool:
        """No step failed, and no gate refused the new version."""
        failed = any(result.status == "failed" for _, results in self.driver.stages for result in results)
        governed = getattr(self, "governed", None)
        return not failed and (governed is None or governed.decision != "refused")

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle run --json`` promises."""
        stages = [
            {"stage": name, "steps": [result.public() for result in results]} for name, results in self.driver.stages
        ]
        return {"ok": self.ok, "stages": stages}


def begin(project: Project, *, listener: Listener | None = None, planning: bool = False) -> Turn:
    """A turn that has not run yet."""
    runs, seed = project.record.runs, project.file.seed
    return Turn(project, Driver(runs, project.folder, seed=seed, listener=listener, planning=planning))


def turn(
    project: Project, *, until: str | None = None, listener: Listener | None = None, planning: bool = False
) -> Turn:
    """One turn, or as far as the stage ``until``."""
    this = begin(project, listener=listener, planning=planning)
    this.go(until)
    return this

"""The cycle on one page: eight stages in order, what each takes and gives, and what closes the loop.

    stage     takes                              gives
    collect   sources, suppression list          corpus; corrections that users gave
    prepare   corpus, corrections                dataset, tests, its tokens, index, profile, report
    develop   dataset, base model or champion    model; evaluations of it, of baselines and of the champion
    track     dataset, model                     versions: dataset/NAME@v1, model/NAME@v1
    deploy    model                              release, tried over real HTTP
    monitor   interactions with the release      latency, errors, drift; alerts
    govern    evaluations, release, gates        model card, decision: a canary, then @champion moves
    improve   feedback on interactions           what is due, and why: the next turn starts here

The same page, driven in planning mode, runs nothing and says what would run and why. `turning.py` writes turns down and
starts the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver, Listener
from treadle.core.errors import UserError, nearest
from treadle.evals.task import load_task
from treadle.lm.base_model import MissingModel, fingerprint, license_of, resolve
from treadle.lm.initial_tokenizer import check_suits, vocabulary_for
from treadle.lm.model import Model
from treadle.project import Project
from treadle.record.record import Record
from treadle.record.suppression import SuppressionList
from treadle.record.turn import TurnInputs
from treadle.record.version import FROM_NOTHING, NOT_RECORDED
from treadle.stages.collect import admit, collect
from treadle.stages.deploy import Deployed, check_deployment, deploy
from treadle.stages.deploy.serving import serving_now
from treadle.stages.develop import Base, Continuing, Developed, check_trainings, compared, develop
from treadle.stages.govern import Governed, govern
from treadle.stages.govern.checking import check_gates
from treadle.stages.govern.promotion import Conclusion, Policy, conclude
from treadle.stages.improve import Improved, improve
from treadle.stages.monitor import Monitored, monitor
from treadle.stages.prepare import InitialTokenizer, Prepared, Tokenizing, prepare
from treadle.stages.track import Tracked, standing, track
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset

A = TypeVar("A", bound=Artifact)

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
        task, prompt = load_task(file.task, driver.folder), file.deploy.system_prompt
        base = self._base()
        recording = file.monitor.recording(file.govern.purpose)
        latest = record.turns.latest()
        taken = latest.inputs if latest else TurnInputs()

        yield "collect"
        suppression: SuppressionList | None = record.erasures.suppression()
        self.corpus = collect(driver, file.collect, suppression)
        corrections = admit(driver, _still(record, Corpus, taken.feedback), suppression)

        yield "prepare"
        start, ready = self._start(_still(record, Model, taken.start), base), _still(record, Model, taken.model)
        tokenizing = Tokenizing(
            base.name,
            base.fingerprint,
            file.develop.max_length,
            prompt,
            self._initial_tokenizer(base),
            ready or (start if task.fit is None else None),
        )
        placed = _still(record, Dataset, taken.split)
        self.prepared = prepare(
            driver,
            file.prepare,
            self.corpus,
            corrections,
            placed,
            task,
            tokenizing,
            record.versions,
            suppression,
        )
        dataset = self.prepared.dataset

        yield "develop"
        self.developed = develop(
            driver,
            file.develop,
            dataset,
            self.prepared.tests,
            self.prepared.cases,
            self.prepared.tokens,
            cleaned=self.prepared.cleaned,
            continuing=Continuing(start, file.improve.tokens, file.improve.corrections.replay, ready),
            task=task,
            base=base,
            tokenizer=self.prepared.tokenizer,
            system_prompt=prompt,
            engine=file.deploy.local_engine,
            standing=standing(record.versions),
            teacher=self.teacher(),
        )
        model, evaluations = self.developed.model, self.developed.evaluations

        yield "track"
        self.tracked = track(driver, record.versions, dataset, model)

        yield "deploy"
        self.deployed = deploy(driver, file.deploy, recording, record, dataset, self.prepared.tests, model, task)
        release = self.deployed.release

        yield "monitor"
        self.monitored = monitor(driver, file.monitor, record, release, self.prepared.profile)

        yield "govern"
        corpora, loss, candidate = self.prepared.corpora, self.deployed.loss, self.tracked.model
        self.governed = govern(driver, file.govern, record, corpora, dataset, evaluations, release, loss, candidate)
        if candidate is not None and self.governed.decision == "judged":
            self.concluded(conclude(record, policy_of(self.project), candidate))

        yield "improve"
        self.improved = improve(driver, file.improve, record)

    def _base(self) -> Base:
        """The base model's fingerprint, or that of the model whose tokenizer one from nothing takes; a plan does
        without where its package is not installed yet."""
        settings = self.project.file.develop
        taken = settings.init.tokenizer if settings.init is not None else settings.base_model
        name = settings.base_model or FROM_NOTHING
        if taken is None:
            return Base(name, "")
        try:
            if settings.init is not None and not self.driver.planning:
                check_suits(resolve(taken).path, settings.init.architecture, taken)
            return Base(name, fingerprint(taken), license_of(taken) if settings.init else None)
        except MissingModel:
            if self.driver.planning:
                return Base(name, "")
            raise

    def teacher(self) -> Model | None:
        """The version of a model that the file names as a teacher."""
        distill, record = self.project.file.develop.distill, self.project.record
        if distill is None or distill.teacher is None:
            return None
        found = record.versions.resolve(distill.teacher)
        if found is None or found.kind != "model":
            raise UserError(
                f"develop.distill.teacher: {distill.teacher!r} is no version of a model; expected one such as model@v1"
            )
        return Model(found.digest, record.store)

    def _start(self, model: Model | None, base: Base) -> Model | None:
        """The model that training goes on from; None where it has another base than the file names now, whose tokens
        would mean nothing to it, or a student is made, which begins as its teacher."""
        if model is None or self.project.file.develop.distill is not None:  # or it would lose layers each turn
            return None
        known = model.about()["base_model"]
        same = known["name"] == FROM_NOTHING if base.name == FROM_NOTHING else base.fingerprint in ("", known["digest"])
        if same or known["name"] == NOT_RECORDED:
            return model
        if not self.driver.planning:
            now = "a model from nothing" if base.name == FROM_NOTHING else base.name
            self.driver.listener.say(f"the model before was trained from {known['name']}; this one begins as {now}")
        return None

    def _initial_tokenizer(self, base: Base) -> InitialTokenizer | None:
        init = self.project.file.develop.init
        if init is None:
            return None
        vocabulary = init.vocabulary or vocabulary_for(init.size)
        return InitialTokenizer(init.architecture, vocabulary, init.tokenizer, base.fingerprint)

    def concluded(self, conclusion: Conclusion) -> None:
        """Take what was decided about the candidate."""
        self.governed = replace(self.governed, decision=conclusion.decision, reason=conclusion.reason)
        if self.tracked.model is not None:
            self.driver.listener.say(conclusion.line(self.tracked.model))

    def go(self, until: str | None = None) -> None:
        """Run the stages, or as far as ``until``. Raises what a stage raises; what was done before it stays done."""
        if until is not None and until not in STAGES:
            raise UserError(f"there is no stage {until!r};{nearest(until, STAGES)}")
        if until is None or STAGES.index(until) >= STAGES.index("deploy"):
            file = self.project.file
            init = file.develop.init
            beginning = init.tokenizer if init is not None else file.develop.base_model
            task = load_task(file.task, self.project.folder)
            check_deployment(file.deploy, task, beginning, whole=init is None)
            if until is None or STAGES.index(until) >= STAGES.index("govern"):
                check_gates(file.govern, task, compared(file.develop, task), self.project.folder)
        last = None
        for stage in self.stages():
            if last is not None and last == until:
                break
            self.driver.stage(stage)
            last = stage

    @property
    def ok(self) -> bool:
        """No step failed, and no gate said no: of the new version, or of one that is the champion already."""
        failed = any(result.status == "failed" for _, results in self.driver.stages for result in results)
        governed = getattr(self, "governed", None)
        if failed or governed is None:
            return not failed
        return governed.decision != "refused" and all(result.passed for result in governed.results)

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle run --json`` promises."""
        stages = [
            {"stage": name, "steps": [result.public() for result in results]} for name, results in self.driver.stages
        ]
        return {"ok": self.ok, "stages": stages}


def _still(record: Record, kind: type[A], digest: str | None) -> A | None:
    """An artifact that a turn took, unless it was erased since."""
    return kind(digest, record.store) if digest and record.store.has(digest) else None


def policy_of(project: Project) -> Policy:
    """How a version of this project gets into force."""
    file = project.file
    return Policy(
        file.govern,
        ask=file.improve.promote == "ask",
        canary=file.improve.canary,
        serving=bool(serving_now(project.record)),
    )


def begin(project: Project, *, listener: Listener | None = None, planning: bool = False) -> Turn:
    """A turn that has not run yet. ``UserError`` for trainings that cannot be as the file has them."""
    check_trainings(project.file.develop, load_task(project.file.task, project.folder), project.folder)
    runs, seed = project.record.runs, project.file.seed
    return Turn(project, Driver(runs, project.folder, seed=seed, listener=listener, planning=planning))

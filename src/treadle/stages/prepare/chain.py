"""The steps of `prepare` in their order: from documents to a dataset and what is known of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.executors import Executor
from treadle.core.place import about
from treadle.core.plugins import load
from treadle.core.settings import bind, check
from treadle.evals.task import Task
from treadle.lm.initial_model import Architecture
from treadle.lm.initial_tokenizer import KINDS
from treadle.lm.model import Model
from treadle.lm.tokenizer_training import FIGURES_FILE, TrainedTokenizer
from treadle.lm.tokens import Tokens
from treadle.record.report import Report
from treadle.record.suppression import SuppressionList
from treadle.record.version import Versions
from treadle.stages.prepare.cleaning import clean, leave_out
from treadle.stages.prepare.division import (
    FEEDBACK,
    RARE_LABEL,
    assemble,
    choose_cases,
    choose_tests,
    keep_evaluations_apart,
    rare_corrections,
)
from treadle.stages.prepare.evaluations import dataset_version, find_sets
from treadle.stages.prepare.outputs import (
    explore,
    index_examples,
    learn_tokenizer,
    make_features,
    profile_questions,
    take_tokenizer,
    tokenize,
    train_tokenizer,
)
from treadle.stages.prepare.quality import filter_quality, gather_examples, told, train_quality
from treadle.stages.prepare.settings import (
    EXAMPLES,
    ExamplesSettings,
    PrepareSettings,
    QualitySettings,
)
from treadle.stages.prepare.synthesis import synthesized
from treadle.text.accounting import read_accounting
from treadle.text.corpus import Corpus
from treadle.text.dataset import DATASET_FILE, Dataset
from treadle.text.examples import NO_GROUP, load_maker
from treadle.text.handles import Index, Profile
from treadle.text.mentions import data_key
from treadle.text.transform import load_transforms, parse_step

MIN_ITEMS = 8  # test cases below which they are too few to say anything


@dataclass(frozen=True)
class Tokenizing:
    """Whose tokens, and what is said before the user: what the tokens of a dataset depend on."""

    base_model: str
    fingerprint: str
    max_length: int
    system_prompt: str | None
    initial: InitialTokenizer | None = None
    start: Model | None = None  # of a model from nothing, a later turn's: its tokenizer stays


@dataclass(frozen=True)
class InitialTokenizer:
    """The tokenizer of a model from nothing: learned, or that of ``base``, which ``fingerprint`` pins."""

    architecture: Architecture
    vocabulary: int
    base: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Prepared:
    """What the later stages take. ``tokens`` is None for tasks that tokenize while they train.

    ``tests`` holds the test split and the worked examples alone: as long as these are the same, what was evaluated on
    them stays so. ``cases`` are tests made of corrections; None while there are none. ``added`` are the documents
    beside the cleaned ones: corrections, and what a teacher made.
    """

    cleaned: Corpus
    added: tuple[Corpus, ...]
    dataset: Dataset
    tests: Dataset
    cases: Dataset | None
    tokens: Tokens | None
    index: Index
    profile: Profile
    report: Report
    tokenizer: TrainedTokenizer | None = None

    @property
    def corpora(self) -> tuple[Corpus, ...]:
        """All that a document of the dataset may lie in."""
        return (self.cleaned, *self.added)


def prepare(
    driver: Driver,
    settings: PrepareSettings,
    corpus: Corpus,
    corrections: Corpus | None,
    placed: Dataset | None,
    task: Task,
    tokenizing: Tokenizing,
    versions: Versions,
    suppression: SuppressionList | None = None,
) -> Prepared:
    """From documents, and what users corrected, to a dataset and what is known of it. Groups stay on the side where
    ``placed`` has them. Nobody on the suppression list is among the examples of quality, or in what a teacher says."""
    with driver.working_on(executor_for(settings.on)):
        return _prepare(driver, settings, corpus, corrections, placed, task, tokenizing, versions, suppression)


def executor_for(on: str | dict[str, Any]) -> Executor:
    """Where transforms run; nothing is started yet. ``UserError`` for what is no executor, or a wrong setting."""
    name, settings = parse_step(on, "prepare.on")
    with about("prepare.on", name):
        part = load("treadle.executors", name).value
        executor: Executor = bind(part, settings, where=f"prepare.on ({name})", provided={})
    return executor


def _prepare(
    driver: Driver,
    settings: PrepareSettings,
    corpus: Corpus,
    corrections: Corpus | None,
    placed: Dataset | None,
    task: Task,
    tokenizing: Tokenizing,
    versions: Versions,
    suppression: SuppressionList | None,
) -> Prepared:
    transforms, maker, maker_settings = parse_steps(settings, task)
    key = data_key(driver.runs.keyed_person)
    loaded = load_transforms(transforms, driver.folder, key=key)
    where = f"prepare.steps[{len(settings.steps) - 1}].{EXAMPLES}"
    maker_version = _checked_maker(maker, maker_settings, where, driver.folder)
    keys = [{**each.key(), "packages": _versions(each.packages)} for each in loaded]
    cleaned = driver.run(clean, corpus, transforms=transforms, keys=keys)
    if settings.earlier.versions:
        earlier = tuple(_corpus_of(driver, versions, ref, "prepare.earlier") for ref in settings.earlier.versions)
        cleaned = driver.run(leave_out, cleaned, earlier, near=settings.earlier.near)
    if settings.quality is not None:
        cleaned = _good_enough(driver, settings.quality, cleaned, versions, suppression)
    corrected = driver.run(clean, corrections, transforms=transforms, keys=keys) if corrections else None
    dataset = driver.run(
        assemble,
        cleaned,
        corrected,
        placed,
        task=task.name,
        maker=maker,
        maker_version=maker_version,
        maker_settings=maker_settings,
        split=settings.split.model_dump(exclude={"time"} if settings.split.time is None else None),
    )
    apart = find_sets(driver, settings.decontaminate, versions)
    if settings.decontaminate:
        dataset = driver.run(keep_evaluations_apart, dataset, cleaned, corrected, apart.tests, **apart.settings)
    tests = driver.run(choose_tests, dataset)
    cases = driver.run(choose_cases, corrected, dataset) if corrected else None
    profile = driver.run(profile_questions, dataset)  # of what people ask, so before a teacher adds to it
    synthetic = None
    if settings.synthesize is not None:
        dataset, synthetic = synthesized(
            driver,
            settings.synthesize,
            versions,
            dataset,
            cleaned,
            cases,
            apart,
            (transforms, keys),
            task.name,
            suppression,
        )
    cases = cases if cases is None or cases.pending or cases.counts()["test"] >= MIN_ITEMS else None
    tokenizer = _tokenizer(driver, settings, tokenizing, cleaned, dataset)
    tokens = _tokens(driver, tokenizing, tokenizer, dataset) if task.fit is None else None
    index = driver.run(index_examples, dataset)
    if settings.features is not None:
        features = driver.run(make_features, dataset, **settings.features.model_dump())
        if not driver.planning:
            driver.listener.say(f"features for classical models: {features.shown('features.json')}")
    report = driver.run(explore, corpus, cleaned, dataset, tokens, synthetic)
    if not driver.planning:
        counts = " / ".join(f"{count:,} {name}" for name, count in dataset.counts().items())
        driver.listener.say(f"{counts}; no group on two sides{_without_group(dataset)}")
        if corrected is not None:
            driver.listener.say(_of_corrections(corrected, dataset))
        if tokenizer is not None and tokenizer.has(FIGURES_FILE):
            driver.listener.say(_of_the_tokenizer(tokenizer))
        driver.listener.say(f"report with pictures: {report.shown('explore.html')}")
    added = tuple(each for each in (corrected, synthetic) if each is not None)
    return Prepared(cleaned, added, dataset, tests, cases, tokens, index, profile, report, tokenizer)


def _good_enough(
    driver: Driver, settings: QualitySettings, corpus: Corpus, versions: Versions, suppression: SuppressionList | None
) -> Corpus:
    good, bad = (
        _examples_of(driver, side, versions, suppression, f"prepare.quality.{name}")
        for name, side in (("good", settings.good), ("bad", settings.bad))
    )
    classifier = driver.run(train_quality, good, bad)
    if not driver.planning:
        driver.listener.say(told(classifier))
    return driver.run(filter_quality, corpus, classifier, threshold=settings.threshold)


def _examples_of(
    driver: Driver, settings: ExamplesSettings, versions: Versions, suppression: SuppressionList | None, where: str
) -> Corpus:
    given = {key: value for key, value in settings.model_dump().items() if key != "dataset"}
    if settings.dataset is None:
        return gather_examples(driver, given, suppression, where)
    if given != {"type": "files"}:
        raise UserError(f"{where}: expected a source or a dataset, not both")
    return _corpus_of(driver, versions, settings.dataset, where)


def _tokenizer(
    driver: Driver, settings: PrepareSettings, tokenizing: Tokenizing, cleaned: Corpus, dataset: Dataset
) -> TrainedTokenizer | None:
    """That of the model from nothing, or the one the file asks for."""
    own, initial = settings.tokenizer, tokenizing.initial
    if initial is None:
        return driver.run(train_tokenizer, cleaned, **own.model_dump()) if own else None
    if tokenizing.start is not None:
        return None
    architecture = initial.architecture
    if initial.base is not None:
        given = {"base_model": initial.base, "fingerprint": initial.fingerprint}
        return driver.run(take_tokenizer, architecture=architecture, **given)
    asked: dict[str, Any] = {"kind": KINDS[architecture], "vocabulary": initial.vocabulary, "special": []}
    asked |= own.model_dump() if own else {}
    return driver.run(learn_tokenizer, cleaned, dataset, architecture=architecture, **asked)


def _tokens(driver: Driver, tokenizing: Tokenizing, tokenizer: TrainedTokenizer | None, dataset: Dataset) -> Tokens:
    return driver.run(
        tokenize,
        dataset,
        (tokenizing.start or tokenizer) if tokenizing.initial else None,
        base_model=tokenizing.base_model,
        fingerprint=tokenizing.fingerprint,
        max_length=tokenizing.max_length,
        system_prompt=tokenizing.system_prompt,
    )


def _of_the_tokenizer(tokenizer: TrainedTokenizer) -> str:
    found = tokenizer.fertility()
    return (
        f"tokenizer of {found['vocabulary']:,.0f} tokens: {found['tokens_per_word']:.2f} a word,"
        f" {found['bytes_per_token']:.2f} bytes each, {found['unknown']:.2%} unknown"
    )


def _corpus_of(driver: Driver, versions: Versions, ref: str, where: str) -> Corpus:
    """The cleaned documents that a version of a dataset was made from."""
    digest: Any = dataset_version(versions, ref).digest
    while (made := driver.runs.producer(digest)) is not None:
        if "corpus" in made.inputs:
            corpus = Corpus(made.inputs["corpus"], driver.runs.store)
            if driver.runs.store.has(corpus.digest):
                return corpus
            raise UserError(f"{where}: the documents of {ref} are no longer in the store")
        digest = made.inputs.get("dataset")
    raise UserError(f"{where}: {ref} was not made here, so its documents are not known; leave it out")


def _without_group(dataset: Dataset) -> str:
    alone = read_accounting(dataset.path()).notes.get(NO_GROUP, 0)
    if not alone:
        return ""
    by = dataset.read_json(DATASET_FILE)["split"]["by"]
    return f"; {alone:,} examples without {by!r} are each a group of their own"


def _of_corrections(corrected: Corpus, dataset: Dataset) -> str:
    all_of_them = [doc for batch in corrected.documents() for doc in batch]
    rare = rare_corrections(dataset)
    uses = Counter(doc.fields.get("use") for doc in all_of_them if doc.id not in rare)
    learned = sum(FEEDBACK in example.fields for example in dataset.examples("train"))
    few = f" (judged by once there are {MIN_ITEMS})" if uses["test"] < MIN_ITEMS else ""
    unknown = f", {len(rare)} with an unknown label ({RARE_LABEL})" if rare else ""
    return (
        f"{len(all_of_them)} corrections: {learned} to learn from, {uses['test']} kept as test cases{few},"
        f" {uses['train'] - learned} too near to a test{unknown}"
    )


def parse_steps(settings: PrepareSettings, task: Task) -> tuple[list[Any], str, dict[str, Any]]:
    """Transforms, the maker's name and its settings."""
    items = list(settings.steps)
    if not items or not (isinstance(items[-1], dict) and EXAMPLES in items[-1]):
        return items, task.maker, {}
    chosen = items[-1][EXAMPLES]
    name, maker_settings = parse_step(chosen, f"prepare.steps[{len(items) - 1}].examples")
    return items[:-1], name, maker_settings


def _checked_maker(name: str, settings: dict[str, Any], where: str, folder: Path | None) -> str:
    """The version of its code; a wrong setting shows before anything runs."""
    with about(where, name):
        maker, version = load_maker(name, folder)
        documents = next(iter(signature(maker).parameters))
        check(maker, settings, where=f"{where} ({name})", provided=(documents,))
    return version


def _versions(packages: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found

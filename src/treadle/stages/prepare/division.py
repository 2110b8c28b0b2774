"""A dataset: examples from documents, divided by group, and apart from what they are judged by."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treadle.core.errors import UserError
from treadle.core.plugins import names
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.baselines import WORKED_EXAMPLES, worked_examples
from treadle.text.accounting import Accounting, Dropped, Note, read_accounting
from treadle.text.corpus import Corpus
from treadle.text.dataset import DATASET_FILE, SPLITS, Dataset, Example, split_groups, write_dataset
from treadle.text.decontaminate import MIN_WORDS, decontaminate
from treadle.text.document import Document
from treadle.text.drops import DroppedExample, account, log_lost_examples
from treadle.text.evaluation_set import PREFIX, EvaluationSet, KeptApart, keep_apart, set_of_documents, set_of_examples
from treadle.text.examples import GROUP, load_maker, make_examples, rarest
from treadle.text.rule_log import RULES_FILE, RuleRows, read_rule_log
from treadle.text.source import OpenSource, SourceContext, open_source, read_sources
from treadle.text.split import SIDES, split_examples
from treadle.text.split_time import Timed, split_by_time
from treadle.text.synthesis import SOURCE as SYNTHETIC

FEEDBACK = "feedback"  # the field that says of which interaction an example is the correction
RARE_LABEL = "corrections.rare_label"


@step(name="prepare.assemble", version=8, packages=("pyarrow",))
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
    dataset (``placed``) has on one side stays there. A label that only corrections know is held to what the maker asks
    of labels: a slip of the pen makes no class.
    """
    documents = {document.id: document for batch in corpus.documents() for document in batch}
    function, _ = load_maker(maker, run.folder)
    log = RuleRows()
    made = make_examples(
        list(documents.values()), function, name=maker, by=split["by"], settings=maker_settings, log=log
    )
    if not made.examples:
        raise UserError(_none_made(maker, made.accounting, corpus.accounting()))
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
    taught, judged = _corrections(corrected, "train"), _corrections(corrected, "test")
    if divided.splits["holdout"] and not divided.splits["train"] and not taught:
        raise UserError(_all_held_back(len(divided.splits["holdout"]), maker, made.accounting))
    wanted = [*taught, *judged]
    rare = _too_rare(wanted, made.examples, rarest(function, maker_settings))
    taught, judged = _without(taught, rare), _without(judged, rare)
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
        gone = [*rare, *clean_splits.dropped]
        accounting = accounting.beside(_account_for(corrected, wanted, gone, log))
    with run.create(Dataset) as dataset:
        info = {"task": task, "maker": maker, "split": split, "seed": seed}
        counts = write_dataset(dataset.path, splits, accounting=accounting.to_json(), info=info)
        log.write(dataset.path)
        dataset.add_documents(name for example in _all(splits) for name in example.documents)
        run.summary(**{name: float(count) for name, count in counts.items()})
        return dataset.commit()


def _none_made(maker: str, made: Accounting, before: Accounting) -> str:
    if not made.read:
        rules = f" ({before.losses()} of {before.read:,})" if before.losses() else ""
        return f"prepare: no document is left to make examples of{rules}; loosen prepare.steps, or give more documents"
    return (
        f"prepare: {maker} made no example of {made.read:,} documents ({made.losses()}); give it documents as it takes"
        f" them, or end prepare.steps with `- examples: NAME` of another maker; known: {', '.join(names(GROUP))}"
    )


def _all_held_back(examples: int, maker: str, made: Accounting) -> str:
    lost = f" ({made.losses()})" if made.losses() else ""
    return (
        f"prepare.split.holdout keeps back all {examples:,} examples to learn from; {maker} made examples of"
        f" {made.kept:,} of {made.read:,} documents{lost}: lower it, or give more documents as the maker takes them"
    )


def evaluation_sets(
    sources: Sequence[Sequence[Any]],
    fingerprints: Sequence[str],
    tests: Sequence[Dataset],
    names: Sequence[str],
    run: Run,
) -> list[EvaluationSet]:
    """The sets, those of sources first. ``UserError`` when one changed since its fingerprint was taken, or has
    nothing to look for."""
    context = SourceContext(run.folder, run.keyed)
    opened = [open_source(given, context, where) for _, given, where in sources]
    sets = [_read_set(name, source) for (name, _, _), source in zip(sources, opened, strict=True)]
    sets += [set_of_examples(name, each.examples("test")) for name, each in zip(names, tests, strict=True)]
    if [each.fingerprint() for each in opened] != list(fingerprints):
        raise UserError("prepare.decontaminate: a set changed while it was read; run the same command again")
    for each in sets:
        if not len(each):
            told = f"{each.name} has no text of {MIN_WORDS} words or more to look for{_unread(each)}"
            raise UserError(f"prepare.decontaminate: {told}")
    return sets


def _read_set(name: str, source: OpenSource) -> EvaluationSet:
    came = Accounting()
    found = set_of_documents(name, (document for batch in read_sources([source], came) for document in batch))
    return dataclasses.replace(found, unread=tuple(came.quarantined))


def _unread(found: EvaluationSet) -> str:
    if not found.unread:
        return ""
    first = found.unread[0]
    return f"; {len(found.unread):,} quarantined, the first, {first.source} at byte {first.offset}: {first.reason}"


@step(name="prepare.keep_evaluations_apart", version=4, packages=("pyarrow",))
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
    sets = evaluation_sets(sources, fingerprints, tests, names, run)
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
        if each.unread:
            accounting.unread[each.name] = list(each.unread)
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
    log_lost_examples(log, apart.dropped, kept)
    gone = {name: drop for drop in reversed(apart.dropped) for name in drop.example.documents if name not in kept}
    read = read_accounting(dataset.path()).kept
    accounting = Accounting(read=read, kept=read - len(gone), log=log)
    for batch in batches:
        for document in batch:
            drop = gone.pop(document.id, None)
            if drop is not None:
                accounting.drop(Dropped(document, drop.rule, drop.reason))
    return accounting.close()


@step(name="prepare.choose_tests", version=2, packages=("pyarrow",))
def choose_tests(dataset: Dataset, *, seed: int, run: Run) -> Dataset:
    """The test split with the examples that baselines may show, apart from what a later turn or a teacher adds to
    training: the same before synthetic examples join as after."""
    old = [example for example in dataset.examples("train") if FEEDBACK not in example.fields]
    old = [example for example in old if example.fields.get("origin") != SYNTHETIC]
    if dataset.read_json(DATASET_FILE).get("rejected"):
        old = list(map(_untaught, old))
    chat = [example for example in old if example.messages and example.answer]
    shown = worked_examples(chat, seed=seed) if len(chat) >= WORKED_EXAMPLES else []
    splits = {"train": shown if chat else old, "test": dataset.examples("test")}
    with run.create(Dataset) as tests:
        write_dataset(tests.path, splits, accounting=Accounting().to_json(), info={"of": "tests"})
        tests.add_documents(name for example in _all(splits) for name in example.documents)
        return tests.commit()


def _untaught(example: Example) -> Example:
    """As it was before a teacher's wrong answer, which is the last of its documents, stood beside its own."""
    if "rejected" not in example.fields or len(example.documents) < 2:
        return example
    fields = {key: value for key, value in example.fields.items() if key != "rejected"}
    return dataclasses.replace(example, documents=example.documents[:-1], fields=fields)


@step(name="prepare.choose_cases", version=3, packages=("pyarrow",))
def choose_cases(corrected: Corpus, dataset: Dataset, *, run: Run) -> Dataset:
    """Corrections that are judged by and never learned from, without those whose label ``dataset`` found too rare."""
    rare = rare_corrections(dataset)
    examples = [example for example in _corrections(corrected, "test") if rare.isdisjoint(example.documents)]
    with run.create(Dataset) as cases:
        write_dataset(cases.path, {"test": examples}, accounting=Accounting().to_json(), info={"of": "cases"})
        cases.add_documents(name for example in examples for name in example.documents)
        run.summary(cases=len(examples))
        return cases.commit()


def _corrections(corrected: Corpus | None, use: str) -> list[Example]:
    """Examples of the corrections with this use; each is a group of its own, on the training side by where it is."""
    if corrected is None:
        return []
    documents = [doc for batch in corrected.documents() for doc in batch if doc.fields.get("use") == use]
    examples = []
    for document in documents:
        fields: dict[str, Any] = {FEEDBACK: str(document.fields.get("interaction", "")), "locator": document.locator}
        if "messages" not in document.fields:
            made = Example(
                (document.id,), text=document.text, label=str(document.fields["label"]).strip(), fields=fields
            )
        else:
            messages = tuple(dict(message) for message in document.fields["messages"])
            if "rejected" in document.fields:
                fields["rejected"] = document.fields["rejected"]
            made = Example((document.id,), messages=messages, fields=fields)
        examples.append(dataclasses.replace(made, group=document.id))
    return examples


def _too_rare(corrections: Sequence[Example], own: Iterable[Example], at_least: int) -> list[DroppedExample]:
    known = {example.label for example in own}
    wanted = Counter(example.label for example in corrections)
    why = f"no example of the documents has this label, and fewer than {at_least} corrections want it"
    new = [example for example in corrections if example.label is not None and example.label not in known]
    return [DroppedExample(example, RARE_LABEL, why) for example in new if wanted[example.label] < at_least]


def _without(examples: Sequence[Example], dropped: Sequence[DroppedExample]) -> list[Example]:
    gone = {drop.example.id for drop in dropped}
    return [example for example in examples if example.id not in gone]


def rare_corrections(dataset: Dataset) -> set[str]:
    """Ids of the corrections that are no part of a dataset because of their label."""
    return {row.document for row in read_rule_log(dataset.path(RULES_FILE)) if row.rule == RARE_LABEL}


def _account_for(
    corrected: Corpus, made: Sequence[Example], dropped: Sequence[DroppedExample], log: RuleRows
) -> Accounting:
    documents = {document.id: document for batch in corrected.documents() for document in batch}
    gone = {drop.example.id for drop in dropped}
    kept = [example for example in made if example.id not in gone]
    ours = [drop for drop in dropped if FEEDBACK in drop.example.fields]
    return corrected.accounting().then(account(documents, made, kept, ours, log))


def _of_the_corpus(splits: Mapping[str, Sequence[Example]]) -> list[Example]:
    return [example for example in _all(splits) if FEEDBACK not in example.fields]


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

"""What a teacher made joins the training side of a dataset: what is new, gives no test away and keeps to its share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.stages.prepare.division import evaluation_sets
from treadle.text.accounting import Accounting, Dropped, read_accounting
from treadle.text.corpus import Corpus
from treadle.text.dataset import DATASET_FILE, SPLITS, Dataset, Example, write_dataset
from treadle.text.decontaminate import find_leaks
from treadle.text.drops import DroppedExample
from treadle.text.evaluation_set import EvaluationSet, keep_apart
from treadle.text.examples import group_of
from treadle.text.rule_log import RULES_FILE, RuleRows
from treadle.text.synthesis import PREFIX, example_of, with_rejected
from treadle.text.words import words_of


@step(name="prepare.add_synthetic", version=1, packages=("pyarrow",))
def add_synthetic(
    dataset: Dataset,
    corpus: Corpus,
    answers: Corpus,
    synthetic: Corpus,
    cases: Dataset | None,
    tests: tuple[Dataset, ...],
    *,
    share: float,
    sources: list[list[Any]],
    fingerprints: list[str],
    names: list[str],
    seed: int,
    run: Run,
) -> Dataset:
    """The dataset with synthetic examples on its training side: those that ask something new, give nothing away that
    is judged by, and keep to their share of the training examples."""
    splits = {name: dataset.examples(name) for name in SPLITS}
    documents = {document.id: document for batch in synthetic.documents() for document in batch}
    groups = _groups(splits, corpus, dataset, {parent for each in documents.values() for parent in each.parents})
    made = [example_of(each, groups[each.parents[0]]) for each in documents.values()]
    negatives = [example for example in made if "rejected" in example.fields]
    new = [example for example in made if "rejected" not in example.fields]
    judged = [*splits["test"], *splits["validation"], *(cases.examples("test") if cases else ())]
    sets = evaluation_sets(sources, fingerprints, tests, names, run) if sources or names else []
    new, dropped = _filtered(new, [each for examples in splits.values() for each in examples], judged, sets)
    kept, over = _within(new, len(splits["train"]), share, seed)
    taught, used = with_rejected(splits["train"], negatives)
    gone = [*dropped, *over, *_unused(negatives, used)]
    splits["train"] = [*taught, *kept]
    log = RuleRows()
    for before in (dataset, answers, synthetic):
        log.carry(before.path(RULES_FILE))
    accounting = Accounting(read=len(documents), kept=len(kept) + len(used), log=log)
    for each in gone:
        accounting.drop(Dropped(documents[each.example.documents[0]], each.rule, each.reason))
    made_of_them = answers.accounting().then(synthetic.accounting()).then(accounting.close())
    whole = read_accounting(dataset.path()).beside(made_of_them)
    info = {key: value for key, value in dataset.read_json(DATASET_FILE).items() if key not in {"counts", "format"}}
    with run.create(Dataset) as joined:
        counts = write_dataset(
            joined.path,
            splits,
            accounting=whole.to_json(),
            info={**info, "synthetic": len(kept), "rejected": len(used)},
        )
        log.write(joined.path)
        joined.add_documents(name for examples in splits.values() for each in examples for name in each.documents)
        run.summary(
            synthetic=len(kept), rejected=len(used), dropped=len(gone), **{name: float(n) for name, n in counts.items()}
        )
        return joined.commit()


def _groups(
    splits: Mapping[str, Sequence[Example]], corpus: Corpus, dataset: Dataset, parents: set[str]
) -> dict[str, str]:
    """The group of each parent: that of its examples, else what the split would put it in."""
    by = dataset.read_json(DATASET_FILE)["split"]["by"]
    found = {name: each.group for examples in splits.values() for each in examples for name in each.documents}
    for batch in corpus.documents():
        for document in batch:
            if document.id in parents:
                found.setdefault(document.id, group_of(document, by))
    return found


def _filtered(
    new: Sequence[Example], known: Sequence[Example], judged: Sequence[Example], sets: Sequence[EvaluationSet]
) -> tuple[list[Example], list[DroppedExample]]:
    """Those that ask something new and give nothing away."""
    dropped: list[DroppedExample] = []
    asked = {tuple(words_of(each.question)) for each in known}
    fresh: list[Example] = []
    for each in new:
        words = tuple(words_of(each.question))
        if words in asked:
            dropped.append(DroppedExample(each, f"{PREFIX}repeated", "another example asks the same"))
        else:
            asked.add(words)
            fresh.append(each)
    leaks = find_leaks(judged, fresh) if judged and fresh else {}
    reason = "synthetic, and gives away what is judged by"
    dropped += [DroppedExample(fresh[place], f"decontaminate.{rule}", reason) for place, (rule, _) in leaks.items()]
    fresh = [each for place, each in enumerate(fresh) if place not in leaks]
    apart = keep_apart({"train": fresh}, sets)
    return apart.splits["train"], [*dropped, *apart.dropped]


def _within(new: Sequence[Example], real: int, share: float, seed: int) -> tuple[list[Example], list[DroppedExample]]:
    """As many as their share of the training examples allows, drawn by a digest, in their order."""
    most = int(share / (1 - share) * real + 1e-9)
    drawn = sorted(range(len(new)), key=lambda place: blake3_bytes(canonical_json([seed, new[place].id])))
    kept = set(drawn[:most])
    reason = f"more than {share:g} of the training examples would be synthetic"
    over = [DroppedExample(each, f"{PREFIX}over_share", reason) for place, each in enumerate(new) if place not in kept]
    return [each for place, each in enumerate(new) if place in kept], over


def _unused(negatives: Iterable[Example], used: set[str]) -> list[DroppedExample]:
    reason = "the example has a wrong answer already, or was changed or dropped meanwhile"
    return [
        DroppedExample(each, f"{PREFIX}unused_rejected", reason) for each in negatives if each.documents[0] not in used
    ]

"""Synthetic examples: a teacher is asked, its answers become documents, and those join the training side.

    synthesize(_here)  prompts about training documents and examples; documents of origin `synthetic` from the answers
    clean              the project's own transforms, as for any other document (but no mixture: it weighs sources)
    add_synthetic      what is new, gives no test away and keeps to its share joins the training side

Only what may be learned from is asked about. No test, no validation and no held-back example is ever synthetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.teacher import Prompt
from treadle.record.lineage import PARENTS_FILE
from treadle.record.release import Release
from treadle.record.suppression import SuppressionList
from treadle.record.version import Versions
from treadle.stages.prepare.cleaning import clean
from treadle.stages.prepare.evaluations import EvaluationSources
from treadle.stages.prepare.joining import add_synthetic
from treadle.stages.prepare.replies import Replies
from treadle.stages.prepare.settings import SynthesizeSettings
from treadle.stages.prepare.teachers import HOW, describe, open_teacher, release_of
from treadle.text.accounting import Accounting, Dropped, Note, read_accounting
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.dataset import DATASET_FILE, Dataset, split_groups
from treadle.text.document import Document
from treadle.text.examples import group_of
from treadle.text.prompt_template import PromptTemplate, read_template, shipped_template
from treadle.text.rule_log import RULES_FILE, RuleRows, read_rule_log
from treadle.text.split_time import is_learned_from
from treadle.text.suppress import Suppress, Suppression
from treadle.text.synthesis import (
    KINDS,
    MAY,
    PREFIX,
    Asked,
    Material,
    Wanted,
    form_of,
    plan,
    read_answer,
)
from treadle.text.transform import parse_step

SYNTHETIC_FILE = "synthetic.json"
_TESTED = ("validation", "test")
_BARRED = ("decontaminate.", "split.")
_WEIGHS_SOURCES = "mixture"


def synthesized(
    driver: Driver,
    settings: SynthesizeSettings,
    versions: Versions,
    dataset: Dataset,
    cleaned: Corpus,
    cases: Dataset | None,
    apart: EvaluationSources,
    transforms: tuple[list[Any], list[dict[str, Any]]],
    task: str,
    suppression: SuppressionList | None,
) -> tuple[Dataset, Corpus]:
    """The dataset with what a teacher adds to its training side, and the documents that it added. ``transforms`` are
    those of the file, with their keys. Nobody on the suppression list is in what the teacher says."""
    told: dict[str, Any] = {
        "task": task,
        "teacher": describe(driver, settings.teacher),
        "kinds": _kinds(driver, settings, task),
    }
    if settings.teacher.url is not None:
        answers = driver.run(synthesize, dataset, cleaned, suppression, **told)
    else:
        release = release_of(driver, versions, settings.teacher)
        answers = driver.run(synthesize_here, dataset, cleaned, release, suppression, **told)
    if not driver.planning:
        Replies.of(driver.runs.store).discard()
    used = [
        each for each in zip(*transforms, strict=True) if parse_step(each[0], "prepare.steps")[0] != _WEIGHS_SOURCES
    ]
    some, keys = [item for item, _ in used], [key for _, key in used]
    synthetic = driver.run(clean, answers, transforms=some, keys=keys)
    joined = driver.run(
        add_synthetic,
        dataset,
        cleaned,
        answers,
        synthetic,
        cases,
        apart.tests,
        share=settings.share,
        **apart.settings,
    )
    if not driver.planning:
        driver.listener.say(_told(joined))
    return joined, synthetic


def _kinds(driver: Driver, settings: SynthesizeSettings, task: str) -> list[dict[str, Any]]:
    """What is wanted, with the templates in full."""
    wanted = []
    for kind in KINDS:
        given = getattr(settings, kind)
        if given is None:
            continue
        form, where = form_of(kind, task), f"prepare.synthesize.{kind}"
        if form is None:
            raise UserError(f"{where}: these are questions and answers, and the task is {task}; leave them out")
        template = (
            shipped_template(form.template)
            if given.template is None
            else read_template(driver.folder / given.template, form.needs, MAY, f"{where}.template")
        )
        wanted.append({**given.model_dump(), "kind": kind, "template": template.model_dump()})
    return wanted


@step(name="prepare.synthesize", version=2, packages=("pyarrow",), tolerance=0.05)
def synthesize(
    dataset: Dataset,
    corpus: Corpus,
    suppression: SuppressionList | None,
    *,
    task: str,
    teacher: dict[str, Any],
    kinds: list[dict[str, Any]],
    seed: int,
    run: Run,
) -> Corpus:
    """Documents made of a server's answers about what is learned from, and what was wrong with the others.

    What names anybody on the suppression list goes no further. Cut off, the same step goes on from the answers that it
    has.
    """
    return _ask(dataset, corpus, None, suppression, task, teacher, kinds, seed, run)


@step(
    name="prepare.synthesize_here",
    version=2,
    packages=("openvino-genai", "pyarrow", "tokenizers", "torch", "transformers"),
    tolerance=0.05,
)
def synthesize_here(
    dataset: Dataset,
    corpus: Corpus,
    release: Release | None,
    suppression: SuppressionList | None,
    *,
    task: str,
    teacher: dict[str, Any],
    kinds: list[dict[str, Any]],
    seed: int,
    run: Run,
) -> Corpus:
    """As ``synthesize``, by a base model or a release that an engine runs here; what that depends on is in the key."""
    return _ask(dataset, corpus, release, suppression, task, teacher, kinds, seed, run)


def _ask(
    dataset: Dataset,
    corpus: Corpus,
    release: Release | None,
    suppression: SuppressionList | None,
    task: str,
    teacher: dict[str, Any],
    kinds: list[dict[str, Any]],
    seed: int,
    run: Run,
) -> Corpus:
    material, aside = _material(dataset, corpus)
    wanted = [Wanted(**{**each, "template": PromptTemplate(**each["template"])}) for each in kinds]
    asked = [each for one in wanted for each in plan(one, task, material, seed)]
    if not asked:
        raise UserError(
            "prepare.synthesize: there is nothing to ask about: no text of 20 words, no question to train on"
        )
    named = {**_identity(teacher), "release": release.digest if release is not None else None}
    prompts = [_prompt(each, named, seed) for each in asked]
    replies = _answers(prompts, teacher, release, run)
    admitted = _Admission(suppression, run)
    log = RuleRows()
    accounting = Accounting(log=log)
    for rule, names in aside.items():
        if names or rule == "tested_parent":
            accounting.note(Note(f"{PREFIX}{rule}", len(names), names))
    kept: list[Document] = []
    by: Counter[str] = Counter()
    for each, prompt in zip(asked, prompts, strict=True):
        reply = replies.get(prompt.id)
        assert reply is not None
        by[reply.by] += 1
        made_by = {
            "template": each.wanted.template.digest,
            "prompt": prompt.id,
            **({"by": reply.by} if reply.by else {}),
        }
        read = read_answer(each, reply.text, cut=reply.cut, refused=reply.refused, made_by=made_by)
        for piece in admitted(read):
            accounting.read += 1
            if isinstance(piece, Dropped):
                accounting.drop(piece)
            else:
                accounting.kept += 1
                kept.append(piece)
    with run.create(Corpus) as synthetic:
        synthetic.add_documents(write_corpus(synthetic.path, [kept] if kept else []))
        synthetic.add_documents(name for each in asked for name in each.parents)
        # What a sample quotes is held as well: an erasure looks there for whom nothing else names.
        synthetic.add_documents(each.document for samples in accounting.samples.values() for each in samples)
        accounting.write(synthetic.path)
        log.write(synthetic.path)
        about = {"teacher": named, "answered_by": sorted(filter(None, by)), "seed": seed, "kinds": kinds}
        parents = {each.id: list(each.parents) for each in kept}
        (synthetic.path / PARENTS_FILE).write_bytes(canonical_json(parents))
        (synthetic.path / SYNTHETIC_FILE).write_bytes(canonical_json(about))
        run.summary(prompts=len(asked), read=accounting.read, kept=accounting.kept)
        return synthetic.commit()


class _Admission:
    """Lets nobody through who is on the suppression list. A reply may name whom no document here does; in a piece that
    is dropped anyway as well, of which a sample would be kept."""

    def __init__(self, suppression: SuppressionList | None, run: Run) -> None:
        entries = suppression.suppressed() if suppression is not None else {}
        self._apply = Suppress(Suppression.of(entries), run.keyed).start()

    def __call__(self, pieces: Iterable[Document | Dropped]) -> Iterator[Document | Dropped]:
        for piece in pieces:
            document = piece.document if isinstance(piece, Dropped) else piece
            (outcome,) = self._apply([document])
            yield outcome if isinstance(outcome, Dropped) else piece


def _identity(teacher: dict[str, Any]) -> dict[str, Any]:
    """What the answers depend on, of what is known of a teacher; neither how it is reached nor with which key."""
    return {key: value for key, value in teacher.items() if key not in HOW and key != "version"}


def _material(dataset: Dataset, corpus: Corpus) -> tuple[Material, dict[str, tuple[str, ...]]]:
    """What may be asked about, and the documents that may not, by why: a test has their group or them; or nothing is
    learned from them, since they give a test away or are newer than what is."""
    documents = {document.id: document for batch in corpus.documents() for document in batch}
    split, sides = dataset.read_json(DATASET_FILE)["split"], split_groups(dataset.path())
    used = {name for side in _TESTED for name in dataset.split_document_ids(side)}
    tested = {
        name for name, each in documents.items() if name in used or sides.get(group_of(each, split["by"])) in _TESTED
    }
    barred = {
        row.document
        for row in read_rule_log(dataset.path(RULES_FILE))
        if row.fate == "dropped" and row.rule.startswith(_BARRED)
    }
    if time := split.get("time"):
        cut = {"validation": time["validation"], "undated": time["undated"]}
        barred |= {name for name, each in documents.items() if not is_learned_from(each.time, **cut)}
    barred = (barred & documents.keys()) - tested - set(dataset.split_document_ids("train"))
    held = set(dataset.split_document_ids("holdout"))
    material = Material(documents, dataset.examples("train"), frozenset(tested | barred | held))
    return material, {"tested_parent": tuple(sorted(tested)), "barred_parent": tuple(sorted(barred - held))}


def _prompt(asked: Asked, teacher: Mapping[str, Any], seed: int) -> Prompt:
    identity = blake3_bytes(canonical_json([dict(teacher), list(asked.messages), seed]))
    return Prompt(identity, asked.messages, int(identity[3:18], 16))


def _answers(prompts: Sequence[Prompt], teacher: dict[str, Any], release: Release | None, run: Run) -> Replies:
    """A reply to each prompt, asked for where there is none yet."""
    replies = Replies.of(run.store)
    unique = list({prompt.id: prompt for prompt in prompts}.values())
    known = {prompt.id for prompt in unique if prompt.id in replies}
    done = len(known)
    run.progress(done, len(unique), "replies")
    if done == len(unique):
        return replies
    try:
        with open_teacher(teacher, release, run) as opened:
            for prompt, reply in opened.answer(unique, known):
                replies.keep(prompt.id, reply)
                if prompt.id not in known:
                    known.add(prompt.id)
                    done += 1
                    run.progress(done, len(unique), "replies")
    except UserError as error:
        kept = f"; {done:,} of {len(unique):,} replies are kept, and the same command goes on from there"
        raise UserError(f"{error}{kept if done else ''}") from None
    return replies


def _told(dataset: Dataset) -> str:
    """One line for a person."""
    info, gone = dataset.read_json(DATASET_FILE), read_accounting(dataset.path()).dropped
    rules = ", ".join(
        f"{count:,} {rule.removeprefix(PREFIX)}" for rule, count in gone.items() if rule.startswith(PREFIX)
    )
    wrong = f", {info['rejected']:,} wrong answers beside right ones" if info["rejected"] else ""
    train = dataset.counts()["train"]
    return f"{info['synthetic']:,} of {train:,} training examples are synthetic{wrong}" + (
        f" ({rules} dropped)" if rules else ""
    )

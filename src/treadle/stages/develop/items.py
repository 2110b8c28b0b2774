"""Items of one's own to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.text.accounting import Accounting, Dropped
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset, write_dataset
from treadle.text.document import Document
from treadle.text.examples import Made, load_maker, make_examples


@step(name="develop.make_items", version=3, packages=("pyarrow",))
def make_items(corpus: Corpus, *, maker: str, maker_version: str, maker_settings: dict[str, Any], run: Run) -> Dataset:
    """The examples that a maker makes of documents, all of them tests; those without a reference are left out."""
    documents = [document for batch in corpus.documents() for document in batch]
    made = make_examples(documents, load_maker(maker, run.folder)[0], name=maker, settings=maker_settings)
    items = [example for example in made.examples if example.answer]
    accounting = corpus.accounting().then(_referenced(documents, made))
    if len(items) < 2:
        said = f" ({accounting.losses()})" if accounting.losses() else ""
        raise UserError(
            f"evaluate: {len(items)} items with a reference answer or label, of {accounting.read:,} rows{said}; a score"
            " needs two or more"
        )
    with run.create(Dataset) as dataset:
        write_dataset(dataset.path, {"test": items}, accounting=accounting.to_json(), info={"maker": maker})
        dataset.add_documents(name for example in items for name in example.documents)
        run.summary(items=len(items), documents=len(documents))
        return dataset.commit()


def _referenced(documents: Sequence[Document], made: Made) -> Accounting:
    """The account of what there is a reference for."""
    used = {name for example in made.examples if example.answer for name in example.documents}
    silent = {name for example in made.examples for name in example.documents} - used
    for document in documents:
        if document.id in silent:
            made.accounting.kept -= 1
            made.accounting.drop(Dropped(document, "no_reference", "there is no answer or label to compare with"))
    return made.accounting.close()

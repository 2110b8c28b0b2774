"""Items of one's own to evaluate on."""

from __future__ import annotations

from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset, write_dataset
from treadle.text.examples import load_maker, make_examples


@step(name="develop.make_items", version=1, packages=("pyarrow",))
def make_items(corpus: Corpus, *, maker: str, maker_version: str, run: Run) -> Dataset:
    """The examples that a maker makes of documents, all of them tests; those without a reference are left out."""
    documents = [document for batch in corpus.documents() for document in batch]
    made = make_examples(documents, load_maker(maker, run.folder)[0], name=maker)
    items = [example for example in made.examples if example.answer]
    if len(items) < 2:
        raise UserError(f"evaluate: {len(items)} items with a reference answer or label; a score needs two or more")
    accounting = corpus.accounting().then(made.accounting)
    with run.create(Dataset) as dataset:
        write_dataset(dataset.path, {"test": items}, accounting=accounting.to_json(), info={"maker": maker})
        dataset.add_documents(name for example in items for name in example.documents)
        run.summary(items=len(items), documents=len(documents))
        return dataset.commit()

"""Two questions for the demo: one about a document the model was given, one about a module it never saw.

Which documents fall on which side depends on the Python that runs this, so they are looked up, not written down.
"""

from __future__ import annotations

import sys
from pathlib import Path

from treadle.lm.model import Model
from treadle.project import open_project
from treadle.text.dataset import Dataset, Example

# Well known names first; what the model was given decides.
KNOWN = (
    *("json.dumps", "html.escape", "functools.reduce", "re.split", "textwrap.indent", "math.prod", "random.choices"),
    *("queue.Queue.put", "logging.info", "weakref.proxy", "urllib.parse.quote", "timeit.repeat", "gzip.open"),
)


def locator(example: Example) -> str:
    """The name of the document that an example was made from."""
    return str(example.fields.get("locator", ""))


def familiar(example: Example) -> tuple[int, str]:
    """Sorts by how well known a name is."""
    name = locator(example)
    return (KNOWN.index(name) if name in KNOWN else len(KNOWN), example.id)


def main(folder: str) -> None:
    """Print one question a line."""
    with open_project(Path(folder)) as project:
        versions, store = project.record.versions, project.record.store
        champion, data = versions.alias("model", "champion"), versions.all("dataset")
        if champion is None or not data:
            sys.exit("nothing has been promoted; see what the gates said above")
        model, dataset = Model(champion.digest, store), Dataset(data[-1].digest, store)
        learned = set(model.document_ids())
        given = [one for one in dataset.examples("train") if one.documents[0] in learned]
        for example in (min(given, key=familiar), min(dataset.examples("test"), key=familiar)):
            sys.stdout.write(f"What does {locator(example)} do?\n")


if __name__ == "__main__":
    main(sys.argv[1])

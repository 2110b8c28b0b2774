"""Where a synthetic document came from: the run that asked a teacher, who that was, and the documents asked about.

The run's parameters are in the ledger for ever. Which documents are its parents stands in the corpus, so it can be said
as long as that is there.
"""

from __future__ import annotations

from treadle.core.runs import RunRecord
from treadle.record.lineage import Graph, Label
from treadle.record.record import Record
from treadle.text.corpus import Corpus, read_parents

STEPS = ("prepare.synthesize", "prepare.synthesize_here")


def add_origin(record: Record, graph: Graph, document: str, label: Label) -> None:
    """Put the run that made a synthetic document, its teacher and its parents above it; nothing for any other."""
    for run in (run for step in STEPS for run in record.runs.find(step=step, status="done")):
        answers = Corpus(run.outputs["corpus"], record.store)
        if not record.store.has(answers.digest) or not answers.has_document(document):
            continue
        parents = read_parents(answers.path(), document)
        if not parents:
            return  # it is a parent itself
        graph.add(run.id, "run", told(run))
        graph.link(document, run.id)
        labels = label(list(parents))
        for parent in parents:
            graph.add(parent, "document", labels.get(parent, parent))
            graph.link(document, parent)
        release = run.inputs.get("release")
        if release:
            graph.add(release, "release", "release " + release[3:11])
            graph.link(run.id, release)
        return


def told(run: RunRecord) -> str:
    """Teacher, prompts and sampling in one line."""
    teacher, kinds = run.parameters["teacher"], run.parameters["kinds"]
    who = teacher.get("model") or teacher.get("version")
    where = f" at {teacher['url']}" if "url" in teacher else ""
    prompts = ", ".join(f"{each['template']['name']} v{each['template']['version']}" for each in kinds)
    sampling = f"temperature {teacher['temperature']:g}, seed {run.facts['seed']}"
    return f"{run.step} ({run.status}): {who}{where}, asked by {prompts}, {sampling}"

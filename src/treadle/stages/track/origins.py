"""Where a synthetic document came from: the run that asked a teacher, who that was, and the documents asked about.

The run's parameters are in the ledger for ever; which documents are its parents stays when the texts are collected.
"""

from __future__ import annotations

from treadle.core.artifacts import Artifact
from treadle.core.errors import Corrupt
from treadle.core.runs import RunRecord
from treadle.record.lineage import PARENTS_FILE, Graph, Label
from treadle.record.record import Record

STEPS = ("prepare.synthesize", "prepare.synthesize_here")


def add_origin(record: Record, graph: Graph, document: str, label: Label) -> None:
    """Put the run that made a synthetic document, its teacher and its parents above it; nothing for any other."""
    for run in (run for step in STEPS for run in record.runs.find(step=step, status="done")):
        answers = Artifact(run.outputs["corpus"], record.store)
        if not record.store.has_object(answers.digest) or not answers.has_document(document):
            continue
        try:
            parents = answers.read_json(PARENTS_FILE).get(document)
        except Corrupt:
            graph.verified = False
            continue
        if parents is None:
            continue  # it was asked about, or made and dropped
        graph.add(run.id, "run", told(run))
        graph.link(document, run.id)
        labels = label(parents)
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

"""Where everything stands: versions in force, deployment, alerts, counts, and what is waiting."""

from __future__ import annotations

from typing import Any

from treadle.project import Project
from treadle.record.mirrors import Mirrors
from treadle.record.record import Record
from treadle.record.version import Version
from treadle.stages.improve import gathered


def summary(project: Project) -> dict[str, Any]:
    """The shape that ``treadle status --json`` promises."""
    record = project.record
    champion = record.versions.alias("model", "champion")
    challenger = record.versions.alias("model", "challenger")
    dataset = record.versions.latest("dataset")
    deployment = record.deployments.current()
    database = record.workspace.database
    documents = 0
    if dataset is not None:
        sql = "SELECT documents FROM artifacts WHERE digest = ? LIMIT 1"
        documents = next((int(row[0]) for row in database.query(sql, (dataset.digest,))), 0)
    turn = record.turns.latest()
    improved = gathered(project.file.improve, record)
    counts = {
        "documents": documents,
        "runs": int(database.query("SELECT count(*) FROM runs")[0][0]),
        "interactions": record.workspace.journal.count("interactions"),
        "feedback": record.workspace.journal.count("feedback"),
    }
    return {
        "project": project.file.name,
        "champion": _version(champion),
        "challenger": _version(challenger),
        "deployment": {
            "release": deployment.release,
            "model": deployment.model,
            "endpoint": deployment.endpoint,
            "share": deployment.share,
            "since": deployment.time,
        }
        if deployment
        else None,
        "turn": turn.public() if turn else None,
        "canary": _canary(record),
        "due": list(improved.due),
        "held_back": improved.held_back,
        "alerts": [alert.public() for alert in record.alerts.open()],
        "counts": counts,
        "mirrors": [mirror.public() for mirror in Mirrors(record, project.folder).standing()],
        "pending": [f"erasure {each.request}: treadle forget again finishes it" for each in record.erasures.open()],
    }


def _canary(record: Record) -> dict[str, Any] | None:
    canary = record.canaries.open()
    if canary is None:
        return None
    return {"release": canary.release, "share": canary.share, "since": canary.begun, "figures": canary.figures}


def _version(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {"ref": version.ref, "number": version.number, "digest": version.digest, "since": version.time}

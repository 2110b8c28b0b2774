"""A release evaluated by another tool in an environment of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treadle.asking import find_release
from treadle.core.digest import blake3_file
from treadle.core.driver import Driver, Listener
from treadle.project import Project
from treadle.stages.deploy.programs import evaluate_through, find_program


def evaluate_release(
    project: Project, ref: str, program: str, environment: Path, task: str, listener: Listener | None = None
) -> dict[str, Any]:
    """As JSON: the tool, its version, and what it says; ``UserError`` where either is missing."""
    release = find_release(project, ref)
    _, version = find_program(program, environment)
    driver = Driver(project.record.runs, project.folder, seed=project.file.seed, listener=listener)
    driver.stage("deploy")
    path = project.folder / task
    report = driver.run(
        evaluate_through,
        release,
        program=program,
        program_version=version,
        environment=str(environment),
        task=task,
        task_digest=blake3_file(path) if path.is_file() else "",
    )
    return {
        "ref": ref,
        "release": release.digest,
        "program": {"name": program, "version": version, "task": task},
        "evaluation": report.digest,
        "metrics": report.scores(),
    }

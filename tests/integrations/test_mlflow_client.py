"""Unchanged scripts with MLflow's own client: what is read back through our server is what MLflow's store gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from importing.peers import call, peer
from integrations.listening import listening
from tiny_models import write_model
from treadle.core.artifacts import Artifact
from treadle.core.verify import verify
from treadle.tracking import open_record

HERE = Path(__file__).parent
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def both(python: Path, script: str, folder: Path, *arguments: str) -> tuple[Any, Any]:
    """What the client reads back after a script logged into a database of MLflow's, and into our server."""
    told = []
    shutil.copy(HERE / script, folder)  # where there is no Git, whose state may change between the two
    for name in ("theirs", "ours"):
        (folder / name).mkdir()

    def log(uri: str, where: Path) -> None:
        call(python, str(folder / script), *arguments, cwd=where, MLFLOW_TRACKING_URI=uri, **QUIET)
        told.append(json.loads(call(python, str(HERE / "mlflow_dump.py"), cwd=where, MLFLOW_TRACKING_URI=uri)))

    log("sqlite:///mlflow.db", folder / "theirs")
    with listening(folder / "ours") as server:
        log(server.url, folder / "ours")
        server.stop()
    with open_record(folder / "ours") as record:
        assert verify(record.workspace).ok
        assert {run.status for run in record.runs.find()} <= {"done", "failed", "running"}
    return told[0], told[1]


def without_chance(told: Any, *, numbers: bool = True) -> Any:
    """Without names that MLflow makes up; where a training is not the same to the last bit, without its numbers."""
    for experiment in told["experiments"].values():
        for run in experiment["runs"]:
            run["name"] = run["tags"]["mlflow.runName"] = "?"
            if not numbers:
                run["metrics"] = sorted(run["metrics"])
                run["history"] = {name: [step for step, _ in points] for name, points in run["history"].items()}
    return told


@pytest.mark.slow
def test_a_script_with_everything(tmp_path: Path) -> None:
    python = peer("mlflow", "mlflow-skinny==3.17.2", "sqlalchemy", "alembic") / "python"
    theirs, ours = both(python, "mlflow_script.py", tmp_path)
    assert ours == theirs
    assert len(ours["experiments"]["reviews"]["runs"]) == 3
    with open_record(tmp_path / "ours") as record:
        first = next(run for run in record.runs.find() if run.facts["name"] == "first")
        files = Artifact(first.outputs["artifacts"], record.store).entries()
        assert [entry.path for entry in files] == ["conf.json", "texts/a.txt"]
        model = record.versions.resolve("reviewer@champion")
        assert model is not None
        assert model.digest == first.outputs["model"]


@pytest.mark.slow
def test_autolog_of_scikit_learn(tmp_path: Path) -> None:
    theirs, ours = both(_full(), "mlflow_sklearn_script.py", tmp_path)
    assert without_chance(ours) == without_chance(theirs)
    (run,) = ours["experiments"]["autolog"]["runs"]
    assert run["params"]["logisticregression__C"] == "0.5"
    assert run["metrics"]["training_accuracy_score"] > 0.5


@pytest.mark.slow
def test_a_training_with_trl(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny")
    theirs, ours = both(_full(), "trl_script.py", tmp_path, str(model))
    (run,) = ours["experiments"]["Default"]["runs"]
    state = json.loads((tmp_path / "ours" / "out" / "trainer_state.json").read_text())
    logged: dict[str, list[list[float]]] = {}
    for row in state["log_history"]:
        for name in row.keys() - {"step"}:
            logged.setdefault(name, []).append([row["step"], row[name]])
    assert run["history"] == logged
    assert [step for step, _ in logged["loss"]] == [1, 2, 3, 4]
    assert run["params"]["max_steps"] == "4"
    assert without_chance(ours, numbers=False) == without_chance(theirs, numbers=False)


def _full() -> Path:
    return peer("mlflow-trl", "mlflow==3.17.2", "datasets>=4", ours=True, alone=("trl",)) / "python"

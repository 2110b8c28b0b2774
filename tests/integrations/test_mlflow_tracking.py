"""MLflow's calls over real HTTP, against a server in a process of its own, and what they leave in the record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from integrations.listening import API, FILES, Listener, listening, values
from treadle import erasing
from treadle.core.artifacts import Artifact
from treadle.core.digest import blake3_bytes
from treadle.core.identifiers import id_of_hex, new_id
from treadle.core.state import State
from treadle.core.uploads import pending
from treadle.core.verify import expected_objects, verify
from treadle.erasing import Person, _texts_about, _unnamed
from treadle.integrations.mlflow_tracking import files, logged_models, model_versions, registered_models
from treadle.integrations.mlflow_tracking.app import VERSION
from treadle.integrations.mlflow_tracking.calls import CALLS
from treadle.integrations.mlflow_tracking.fields import Fields
from treadle.integrations.mlflow_tracking.problem import Problem
from treadle.integrations.mlflow_tracking.tracker import Tracker
from treadle.record import garbage
from treadle.record.exchange import pull, push
from treadle.record.garbage import Limits, find_garbage
from treadle.record.record import Record
from treadle.record.run_filter import parse
from treadle.record.run_sql import Search
from treadle.record.run_sql import search as search_runs
from treadle.record.run_view import whole
from treadle.record.version import Versions
from treadle.serve.listener import _Ticks
from treadle.tracking import open_or_make_record, open_record

SECRET = "sk-" + "q" * 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with listening(tmp_path_factory.mktemp("listening")) as opened:
        yield opened


@pytest.fixture
def experiment(server: Listener, request: pytest.FixtureRequest) -> str:
    return str(server.call("experiments/create", name=request.node.name)["experiment_id"])


def record_of(record: Record, run: str) -> Any:
    found = record.runs.get(str(id_of_hex("run", run)))
    assert found is not None
    return found


def test_a_run_from_its_beginning_to_its_end(server: Listener, experiment: str) -> None:
    tags = {"mlflow.user": "jane", "mlflow.source.git.commit": "ab" * 20, "team": "search"}
    run = server.begin(experiment, run_name="first", tags=[{"key": k, "value": v} for k, v in tags.items()])
    params = {"lr": "0.0001", "n": "-3", "none": "None", "flag": "True", "why": "as Jane said", "0x:y z": "1e-05",
              "odd": "1.50", "api_key": "abcdef1234567", "text": f"see {SECRET}"}  # fmt: skip
    batch = [{"key": name, "value": value} for name, value in params.items()]
    server.call("runs/log-batch", run_id=run, params=batch, tags=[{"key": "note", "value": "a longer text"}])
    for step in range(3):
        server.metric(run, 1 / (step + 1), step)
    server.call("runs/log-metric", run_id=run, key="odd", value="NaN", timestamp="1700000000000", step="7")
    assert server.run(run)["info"]["status"] == "RUNNING"
    ended = {"status": "FINISHED", "end_time": 1_700_000_004_500}
    assert server.call("runs/update", run_id=run, **ended)["run_info"]["status"] == "FINISHED"

    told = server.run(run)
    info = {"run_name": "first", "user_id": "jane", "experiment_id": experiment, "lifecycle_stage": "active",
            "start_time": 1_700_000_000_000, "end_time": 1_700_000_004_500}  # fmt: skip
    assert told["info"].items() >= info.items()
    hidden = {"api_key": "[secret]", "text": "[secret]"}
    assert values(told["data"]["params"]) == params | hidden
    expected = tags | {"mlflow.runName": "first", "note": "a longer text"}
    assert values(told["data"]["tags"]) == expected
    latest = {each["key"]: (each["value"], each["step"], each["timestamp"]) for each in told["data"]["metrics"]}
    assert latest == {"loss": (1 / 3, 2, 1_700_000_000_002), "odd": ("NaN", 7, 1_700_000_000_000)}

    with open_record(server.folder) as record:
        found = record_of(record, run)
        assert (found.status, found.seconds, found.metrics) == ("done", 4.5, {"loss": 1 / 3})
        assert (found.facts["commit"], found.facts["name"], found.facts["kind"]) == ("ab" * 20, "first", "experiment")
        assert found.parameters["lr"] == 1e-4
        shown = whole(record, found)
        assert shown["tags"].items() >= {"team": "search", "note": "a longer text"}.items()
        assert [p["loss"] for p in shown["points"] if "loss" in p] == [1.0, 0.5, 1 / 3]
        where = parse("params.lr < 1e-3 and tags.team = 'search' and metrics.loss > 0.3")
        assert [each.id for each in search_runs(record.runs, Search(where, None, None, None, False, None))] == [
            found.id
        ]
        ledger = "\n".join(json.dumps(row.body) for row in record.ledger.rows())
        assert not any(word in ledger.lower() for word in ("jane", "longer text", "search'", SECRET))
        assert verify(record.workspace).ok


def test_what_may_not_change_and_what_is_no_name(server: Listener, experiment: str) -> None:
    run = server.begin(experiment)
    server.call("runs/log-parameter", run_id=run, key="lr", value="0.1")
    server.call("runs/log-parameter", run_id=run, key="lr", value="0.1")
    changed = server.refused("runs/log-parameter", "INVALID_PARAMETER_VALUE", run_id=run, key="lr", value="0.2")
    assert "value='0.1'" in changed
    assert "'0.2'" in changed
    twice = [{"key": "a", "value": "1"}, {"key": "a", "value": "1"}]
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("runs/log-parameter", {"key": "a(b)", "value": "1"}),
        ("runs/log-parameter", {"key": "../a", "value": "1"}),
        ("runs/log-parameter", {"key": "a", "value": "x" * 6_001}),
        ("runs/log-parameter", {"value": "1"}),
        ("runs/set-tag", {"key": "a" * 251, "value": "1"}),
        ("runs/set-tag", {"key": "treadle.experiment", "value": "9"}),
        ("runs/log-metric", {"key": "a", "value": "much"}),
        ("runs/log-metric", {"key": "a", "value": True}),
        ("runs/log-metric", {"key": "a", "value": 1, "timestamp": -1}),
        ("runs/log-metric", {"key": "a", "value": 1, "step": 1.5}),
        ("runs/log-metric", {"key": "a"}),
        ("runs/log-batch", {"params": twice}),
        ("runs/log-batch", {"metrics": [{"key": "m", "value": 1}] * 1_001}),
        ("runs/log-batch", {"metrics": [{"key": "m", "value": 1}], "params": [{"key": "lr", "value": "9"}]}),
        ("runs/update", {"status": "SLEEPING"}),
    ]
    for path, fields in wrong:
        server.refused(path, "INVALID_PARAMETER_VALUE", run_id=run, **fields)
    told = server.run(run)["data"]
    assert values(told["params"]) == {"lr": "0.1"}
    assert told["metrics"] == []
    server.refused("runs/get", "RESOURCE_DOES_NOT_EXIST", method="GET", expect=404, run_id="0" * 32)
    answer = server.http.post("/api/2.0/mlflow/runs/log-metric", content=b"[" * 100_000)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")


def test_a_run_that_goes_on_and_one_that_is_put_away(server: Listener, experiment: str) -> None:
    run = server.begin(experiment)
    server.metric(run, 2.0, 1)
    server.call("runs/update", run_id=run, status="KILLED")
    assert server.run(run)["info"]["status"] == "KILLED"
    server.metric(run, 1.0, 2)  # a late one
    with open_record(server.folder) as record:
        assert (record_of(record, run).status, record_of(record, run).metrics) == ("failed", {"loss": 1.0})
    server.call("runs/update", run_id=run, status="RUNNING")
    assert "end_time" not in server.run(run)["info"]
    server.call("runs/set-tag", run_id=run, key="team", value="a")
    server.call("runs/set-tag", run_id=run, key="team", value="b")
    server.call("runs/update", run_id=run, status="FINISHED", run_name="second")
    assert values(server.run(run)["data"]["tags"])["team"] == "b"
    assert server.run(run)["info"]["run_name"] == "second"
    server.call("runs/delete-tag", run_id=run, key="team")
    server.refused("runs/delete-tag", "RESOURCE_DOES_NOT_EXIST", expect=404, run_id=run, key="team")

    server.call("runs/delete", run_id=run)
    assert server.run(run)["info"]["lifecycle_stage"] == "deleted"
    server.refused("runs/log-metric", "INVALID_PARAMETER_VALUE", run_id=run, key="a", value=1)
    ids = {"experiment_ids": [experiment]}
    assert server.call("runs/search", **ids) == {"runs": []}
    assert len(server.call("runs/search", **ids, run_view_type="DELETED_ONLY")["runs"]) == 1
    server.call("runs/restore", run_id=run)
    assert len(server.call("runs/search", **ids)["runs"]) == 1


def test_searching(server: Listener, experiment: str) -> None:
    for number in range(5):
        run = server.begin(experiment, run_name=f"r{number}", tags=[{"key": "team", "value": f"team {number % 2}"}])
        server.metric(run, (3.0, 1.0, "NaN", 2.0, 0.5)[number])
        params = [{"key": "n", "value": str(number)}, {"key": "batch size", "value": "8"}]
        server.call("runs/log-batch", run_id=run, params=params, metrics=[{"key": "all", "value": number}])
        if number < 3:
            server.call("runs/update", run_id=run, status="FINISHED", end_time=1_700_000_000_000 + number)
        if number == 4:
            dataset = {"name": "frame", "digest": "d1", "source_type": "local", "source": "/x"}
            tag = [{"key": "mlflow.data.context", "value": "train"}]
            server.call("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset, "tags": tag}])

    def names(filter_: str = "", *orders: str, **more: Any) -> list[str]:
        found = server.call("runs/search", experiment_ids=[experiment], filter=filter_, order_by=list(orders), **more)
        return [run["info"]["run_name"] for run in found["runs"]]

    up = "attributes.run_name ASC"
    cases = {
        "metrics.loss < 2": ["r1", "r4"],
        "metrics.loss >= 2 AND params.n != '0'": ["r3"],
        "tags.team = 'team 1'": ["r1", "r3"],
        "tags.team LIKE 'team%' and tags.`team` != 'team 0'": ["r1", "r3"],
        "tag.team ILIKE 'TEAM _' and params.\"batch size\" = '8' and status = 'RUNNING'": ["r3", "r4"],
        "params.absent IS NULL AND params.n IS NOT NULL and metric.all > 3": ["r4"],
        "run_name IN ('r1', 'r2') and attributes.end_time > 1700000000001": ["r2"],
        "run_name NOT IN ('r1', 'r2') and metrics.all <= 3": ["r0", "r3"],
        "dataset.name = 'frame' and dataset.context IN ('train')": ["r4"],
        "params.absent = '1'": [],
    }
    for filter_, expected in cases.items():
        assert names(filter_, up) == expected, filter_
    assert names("", "metrics.loss DESC") == ["r0", "r3", "r1", "r4", "r2"]
    assert names("", "metrics.loss") == ["r4", "r1", "r3", "r0", "r2"]
    assert names("", "params.n desc", max_results=2) == ["r4", "r3"]
    first = server.call("runs/search", experiment_ids=[experiment], order_by=[up], max_results=3)
    token = first["next_page_token"]
    assert names("", up, max_results=3, page_token=token) == ["r3", "r4"]
    for wrong in ("metrics.loss <", "metrics.loss ~ 2", "params.n = 1", "loss < 2", "metrics.loss < 2 OR 1",
                  "x.y = 'a'", "tags.a LIKE", "metrics.loss < 'a'", "params.n IN ('a')", "dataset.x = ''"):  # fmt: skip
        server.refused("runs/search", "INVALID_PARAMETER_VALUE", experiment_ids=[experiment], filter=wrong)
    server.refused("runs/search", "INVALID_PARAMETER_VALUE", experiment_ids=[experiment], max_results=50_001)
    server.refused("runs/search", "INVALID_PARAMETER_VALUE", experiment_ids=[experiment], page_token="x")
    assert server.call("runs/search", experiment_ids=[], filter="tags.a LIKE '" + "%a" * 500 + "'") == {"runs": []}


def test_metrics_over_time(server: Listener, experiment: str) -> None:
    runs = [server.begin(experiment) for _ in range(2)]
    for run in runs:
        points = [{"key": "loss", "value": s / 2, "timestamp": 1_700_000_000_000 + s, "step": s} for s in range(50)]
        server.call("runs/log-batch", run_id=run, metrics=points)
        server.call("runs/log-batch", run_id=run, metrics=points[:1])  # sent again after an answer got lost
        server.call("runs/log-batch", run_id=run, metrics=[points[0] | {"model_id": "m-1"}])
    found = server.get("metrics/get-history", run_id=runs[0], metric_key="loss")["metrics"]
    assert [(each["step"], each["value"]) for each in found] == [(step, step / 2) for step in range(50)]
    page = server.get("metrics/get-history", run_id=runs[0], metric_key="loss", max_results=30)
    rest = server.get("metrics/get-history", run_id=runs[0], metric_key="loss", max_results=30,
                      page_token=page["next_page_token"])  # fmt: skip
    assert page["metrics"] + rest["metrics"] == found
    assert "next_page_token" not in rest
    several = server.get("metrics/get-history-bulk-interval", run_ids=runs, metric_key="loss", start_step=10,
                         end_step=40, max_results=10)["metrics"]  # fmt: skip
    assert [each["step"] for each in several if each["run_id"] == runs[1]] == [10, 17, 25, 32, 40]


def test_experiments(server: Listener) -> None:
    assert server.get("experiments/get", experiment_id="0")["experiment"]["name"] == "Default"
    made = server.call("experiments/create", name="reviews of Jane", tags=[{"key": "team", "value": "a"}])
    identifier = made["experiment_id"]
    server.refused("experiments/create", "RESOURCE_ALREADY_EXISTS", name="reviews of Jane")
    found = server.get("experiments/get-by-name", experiment_name="reviews of Jane")["experiment"]
    assert (found["experiment_id"], values(found["tags"])) == (identifier, {"team": "a"})
    assert found["artifact_location"] == f"mlflow-artifacts:/{identifier}"
    server.call("experiments/set-experiment-tag", experiment_id=identifier, key="k", value="v" * 9_000)
    server.call("experiments/delete-experiment-tag", experiment_id=identifier, key="team")
    server.call("experiments/update", experiment_id=identifier, new_name="renamed")
    server.call("experiments/delete", experiment_id=identifier)
    server.refused("runs/create", "INVALID_PARAMETER_VALUE", experiment_id=identifier)
    for view, expected in (("ACTIVE_ONLY", False), ("DELETED_ONLY", True), ("ALL", True)):
        listed = server.call("experiments/search", filter="name LIKE 'ren%'", view_type=view)["experiments"]
        assert bool(listed) == expected
    server.call("experiments/restore", experiment_id=identifier)
    found = server.get("experiments/get", experiment_id=identifier)["experiment"]
    assert (found["name"], found["lifecycle_stage"]) == ("renamed", "active")
    assert values(found["tags"]) == {"k": "v" * 9_000}
    first = server.call("experiments/search", max_results=1, order_by=["experiment_id"])
    assert len(first["experiments"]) == 1
    assert first["next_page_token"]


def test_files_of_a_run(server: Listener, experiment: str) -> None:
    run = server.begin(experiment)

    def put(path: str, data: bytes, expect: int = 200) -> None:
        server.upload(run, path, data, expect=expect, experiment=experiment)

    big = bytes(range(256)) * 20_000
    put("a.txt", b"first")
    put("sub/dir/b.bin", big)
    put("sub/%C3%A9.txt", b"")
    put("a.txt", b"second")
    for bad in ("a.txt/b", "sub", "%2e%2e/x"):
        put(bad, b"x", expect=400)
    base = f"{FILES}{experiment}/{run}/artifacts"
    assert server.http.get(f"{base}/a.txt").content == b"second"
    listed = server.get("artifacts/list", run_id=run)
    assert listed["files"] == [{"path": "a.txt", "is_dir": False, "file_size": 6}, {"path": "sub", "is_dir": True}]
    server.call("runs/update", run_id=run, status="FINISHED")
    assert server.http.get(f"{base}/sub/dir/b.bin").content == big
    under = server.http.get(FILES.rstrip("/"), params={"path": f"{experiment}/{run}/artifacts/sub"}).json()["files"]
    assert under == [{"path": "dir", "is_dir": True}, {"path": "é.txt", "is_dir": False, "file_size": 0}]
    with open_record(server.folder) as record:
        found = record_of(record, run)
        assert {entry.path for entry in Artifact(found.outputs["artifacts"], record.store).entries()} == {
            "a.txt", "sub/dir/b.bin", "sub/é.txt"
        }  # fmt: skip
        assert not pending(record.workspace.state) & {blake3_bytes(b"second"), blake3_bytes(big)}  # others may wait
    put("late.txt", b"late")
    assert server.http.delete(f"{base}/sub").status_code == 200
    assert [each["path"] for each in server.get("artifacts/list", run_id=run)["files"]] == ["a.txt", "late.txt"]
    assert server.http.get(f"{base}/sub/dir/b.bin").status_code == 404
    put("%2e%2e/%2e%2e/%2e%2e/etc/passwd", b"x", expect=400)
    assert server.http.put(f"{FILES}{experiment}/{'0' * 32}/artifacts/x", content=b"x").status_code == 404


def test_models_and_their_aliases(server: Listener, experiment: str) -> None:
    run = server.begin(experiment)

    def log(text: bytes) -> str:
        sent = {"experiment_id": experiment, "name": "reviewer", "source_run_id": run,
                "params": [{"key": "depth", "value": "3"}]}  # fmt: skip
        made = server.call("logged-models", **sent)["model"]["info"]
        path = made["artifact_uri"].removeprefix("mlflow-artifacts:/")
        assert server.http.put(FILES + path + "/MLmodel", content=text).status_code == 200
        answer = server.http.patch(
            f"/api/2.0/mlflow/logged-models/{made['model_id']}", json={"status": "LOGGED_MODEL_READY"}
        )
        assert answer.json()["model"]["info"]["status"] == "LOGGED_MODEL_READY"
        server.call("runs/outputs", run_id=run, models=[{"model_id": made["model_id"], "step": "0"}])
        return str(made["model_id"])

    one, two = log(b"one"), log(b"two")
    server.metric(run, 0.25, key="accuracy", model_id=two, dataset_name="test", dataset_digest="d1")
    told = server.get(f"logged-models/{two}")["model"]
    assert (told["data"]["metrics"][0]["value"], values(told["data"]["params"])) == (0.25, {"depth": "3"})
    assert [each["model_id"] for each in server.run(run)["outputs"]["model_outputs"]] == [one, two]
    chosen = server.call("logged-models/search", experiment_ids=[experiment], filter="metrics.accuracy > 0.2")["models"]
    assert [each["info"]["model_id"] for each in chosen] == [two]
    server.upload(run, "plain/weights.bin", b"three", experiment=experiment)

    server.call("registered-models/create", name="our reviewer", description="of texts")
    server.refused("registered-models/create", "RESOURCE_ALREADY_EXISTS", name="our reviewer")
    places = [
        f"models:/{one}",
        f"models:/{two}",
        f"mlflow-artifacts:/{experiment}/{run}/artifacts/plain",
        f"models:/{one}",
    ]
    for place in places:
        model = place.removeprefix("models:/") if place.startswith("models:") else ""
        made = server.call("model-versions/create", name="our reviewer", source=place, model_id=model)["model_version"]
        assert made["status"] == "READY"
    assert made["version"] == "4"
    for alias, version in (("champion", "1"), ("champion", "3"), ("Prod", "4")):
        server.call("registered-models/alias", name="our reviewer", alias=alias, version=version)
    found = server.get("registered-models/alias", name="our reviewer", alias="champion")["model_version"]
    assert (found["version"], found["aliases"]) == ("3", ["champion"])
    server.refused("registered-models/alias", "INVALID_PARAMETER_VALUE", name="our reviewer", alias="v2", version="1")
    uri = server.get("model-versions/get-download-uri", name="our reviewer", version="2")["artifact_uri"]
    assert server.http.get(FILES + uri.removeprefix("mlflow-artifacts:/") + "/MLmodel").content == b"two"
    server.call("model-versions/set-tag", name="our reviewer", version="2", key="ok", value="yes")
    listed = server.get("model-versions/search", filter="name = 'our reviewer' and tags.ok = 'yes'")["model_versions"]
    assert [each["version"] for each in listed] == ["2"]
    server.refused(
        "model-versions/get", "RESOURCE_DOES_NOT_EXIST", method="GET", expect=404, name="our reviewer", version="9"
    )

    with open_record(server.folder) as record:
        versions = Versions(record.ledger, record.store, "our-reviewer")
        kept = versions.all("model")
        assert [version.number for version in kept] == [1, 2, 3]  # the fourth is the first again
        assert [Artifact(v.digest, record.store).entries()[0].path for v in kept] == [
            "MLmodel",
            "MLmodel",
            "weights.bin",
        ]
        assert [move["version"] for move in versions.history("champion")] == [1, 3]
        assert versions.resolve("our-reviewer@prod") == kept[0]
        assert record.runs.producer(kept[1].digest).id == id_of_hex("run", run)  # type: ignore[union-attr]
        assert record.versions.all("model") == []
        assert verify(record.workspace).ok
    server.call("registered-models/delete", method="DELETE", name="our reviewer")
    server.refused("registered-models/get", "RESOURCE_DOES_NOT_EXIST", method="GET", expect=404, name="our reviewer")


def test_many_at_once(server: Listener, experiment: str) -> None:
    shared = server.begin(experiment)

    def work(number: int) -> str:
        own = server.begin(experiment)
        for step in range(20):
            for run in (shared, own):
                server.metric(run, float(step), step, key=f"m{number}")
                params = [{"key": f"p{number}-{step}", "value": f"some text {step}"}]
                server.call("runs/log-batch", run_id=run, params=params)
            server.get("runs/get", run_id=shared)
        server.upload(shared, f"{number}.txt", str(number).encode(), experiment=experiment)
        server.call("runs/update", run_id=own, status="FINISHED")
        return own

    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(work, range(4)))
    told = server.run(shared)["data"]
    assert {each["key"]: each["value"] for each in told["metrics"]} == {f"m{number}": 19.0 for number in range(4)}
    assert len(values(told["params"])) == 80
    assert len(server.get("artifacts/list", run_id=shared)["files"]) == 4
    with open_record(server.folder) as record:
        for number, run in enumerate(others):
            assert record_of(record, run).metrics == {f"m{number}": 19.0}
            assert len(record_of(record, run).parameters) == 20
        assert verify(record.workspace).ok


def test_a_person_is_found_in_all_that_was_said(server: Listener, experiment: str) -> None:
    run = server.begin(experiment, tags=[{"key": "owner", "value": "Wilhelmina Tock"}])
    server.call("runs/log-parameter", run_id=run, key="asked", value="by Wilhelmina Tock")
    dataset = {"name": "the list of Wilhelmina Tock", "digest": "d", "source_type": "local", "source": "/x"}
    server.call("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])
    other = server.call("experiments/create", name="for Wilhelmina Tock")["experiment_id"]
    server.begin(other, run_name="asked by Wilhelmina Tock")
    with open_record(server.folder) as record:
        person = Person.named(record, "Wilhelmina Tock")
        doomed = _texts_about(record, person)
        assert len(doomed) == 6  # tags, setting, note and card of the data set, card of the experiment, name of its run
        assert not any("Wilhelmina" in json.dumps(row.body) for row in record.ledger.rows())
        suppression, request = record.erasures.extend(person.entries).digest, new_id("era")
        for phase in ("deleting", "done"):
            record.erasures.record(request, person.lookups[0], phase, suppression, objects=sorted(doomed))
        record.store.delete(doomed)
        assert verify(record.workspace).ok
    told = server.run(run)["data"]
    assert values(told["tags"])["owner"] == "[erased]"
    assert values(told["params"]) == {"asked": "[erased]"}
    assert server.run(run)["inputs"] == {"dataset_inputs": [], "model_inputs": []}
    assert server.get("experiments/get", experiment_id=other)["experiment"]["name"] == f"erased {other}"
    assert "Wilhelmina" not in json.dumps(server.call("runs/search", experiment_ids=[experiment]))


def test_calls_that_are_not_served_and_who_is_let_in(server: Listener) -> None:
    told = server.refused("traces", "ENDPOINT_NOT_FOUND", method="GET", expect=404)
    assert told == "GET /api/2.0/mlflow/traces is not served by Treadle; the calls that are: docs/reference/mlflow.md"
    server.refused("runs/create", "ENDPOINT_NOT_FOUND", method="GET", expect=404)
    version = server.http.get("/version")
    assert version.text == VERSION
    assert server.http.get("/health").headers["Treadle-Project"] == version.headers["Treadle-Project"]
    with open_record(server.folder) as record:
        assert version.headers["Treadle-Project"] == record.workspace.keys.project
    assert server.http.get("/health", headers={"Host": "evil.example:5000"}).status_code == 403
    page = server.http.post(
        "/api/2.0/mlflow/experiments/create", json={"name": "x"}, headers={"Origin": "http://e.org"}
    )
    assert (page.status_code, page.json()["error_code"]) == (403, "PERMISSION_DENIED")
    paths = {(call.method, call.path) for call in CALLS}
    assert len(paths) == len(CALLS)
    again = subprocess.run(
        [sys.executable, "-m", "treadle", "listen", "mlflow", "--port", "0"],
        cwd=server.folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 2
    assert f"{server.url} listens to mlflow for this project already; stop it first" in again.stderr


def test_killed_and_started_again(tmp_path: Path) -> None:
    with listening(tmp_path, "--silence", "1h") as server:
        run = server.begin("0")
        server.call("runs/log-parameter", run_id=run, key="lr", value="0.1")
        for step in range(100):
            server.metric(run, 1.0, step)
        server.upload(run, "a/b.txt", b"kept")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(30)
    with open_record(tmp_path) as record:
        record.runs.sweep()
        assert record_of(record, run).status == "running"  # its client may be alive
        held = pending(record.workspace.state)
        assert len(held) == 1 or record_of(record, run).outputs
        found = find_garbage(record, Limits(grace=0.0))
        assert not held & (found.unnamed.keys() | found.waiting.keys())
        assert not held & _unnamed(record)
    with listening(tmp_path, "--silence", "1s", TREADLE_API_KEY="a key of ours") as server:
        assert server.http.get("/health").status_code == 200
        assert server.http.get(f"/api/2.0/mlflow/runs/get?run_id={run}").status_code == 401
        for given in ({"Authorization": "Bearer a key of ours"}, httpx.BasicAuth("any", "a key of ours")):
            if isinstance(given, dict):
                server.http.headers.update(given)
            else:
                server.http.headers.pop("Authorization")
                server.http.auth = given
            told = server.run(run)
        assert values(told["data"]["params"]) == {"lr": "0.1"}
        assert len(server.get("metrics/get-history", run_id=run, metric_key="loss")["metrics"]) == 100
        assert server.http.get(f"{FILES}0/{run}/artifacts/a/b.txt").content == b"kept"
        second = server.begin("0")
        server.metric(second, 3.0)
        time.sleep(1.1)
        with open_record(tmp_path) as record:
            assert record.runs.sweep() == [id_of_hex("run", second)]
            assert record_of(record, second).metrics == {"loss": 3.0}
        assert server.run(second)["info"]["status"] == "FAILED"
        server.metric(second, 2.0, 1)  # it was only slow
        assert server.run(second)["info"]["status"] == "RUNNING"
        server.stop()
    with open_record(tmp_path) as record:
        assert "artifacts" in record_of(record, run).outputs
        assert not pending(record.workspace.state)
        assert verify(record.workspace).ok


def _send(tracker: Tracker, model: str, data: bytes = b"") -> None:
    folder = tracker.record.store.new_folder("upload-")
    (folder / "file").write_bytes(data or model.encode())
    digest = blake3_bytes(data or model.encode())
    files.take(tracker, files.Place(f"model/{model}", "f"), folder / "file", digest)


def _model(tracker: Tracker, name: str = "m") -> str:
    return str(logged_models.create(tracker, Fields({"name": name}))["model"]["info"]["model_id"])


def test_files_of_what_is_gone_hold_up_no_others(tmp_path: Path) -> None:
    with open_or_make_record(tmp_path) as record:
        tracker = Tracker(record, 60.0)
        made = _model(tracker)
        _send(tracker, made)
        logged_models.delete(tracker, Fields({"model_id": made}))
        assert not pending(record.workspace.state)
        assert record.cards.get("logged_model", made)["artifact"]  # type: ignore[index]

        gone, left, stuck = (_model(tracker, name) for name in "abc")
        for model in (gone, left, stuck):
            _send(tracker, model)
        card = record.cards.get("logged_model", stuck)
        record.cards.put("logged_model", gone, {"deleted": True})
        record.cards.put("logged_model", stuck, {"artifact": "b3:" + "0" * 64})
        settling = files.Settling(tracker)
        settling.look(at_once=True)
        assert tracker.uploads.owners() == {f"model/{stuck}"}
        assert record.cards.get("logged_model", left)["artifact"]  # type: ignore[index]
        record.cards.put("logged_model", stuck, card or {})
        settling.look(at_once=True)
        assert not pending(record.workspace.state)
        assert verify(record.workspace).ok


def test_a_mistake_in_a_tick_ends_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def tick(self) -> None:
            raise Problem("INTERNAL_ERROR", "a mistake")

    with open_or_make_record(tmp_path) as record:
        _Ticks(record, Broken(), "listen:x")()  # type: ignore[arg-type]
    assert "tick failed, and is tried again" in caplog.text


def test_what_settles_meanwhile_is_no_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_or_make_record(tmp_path) as record:
        tracker = Tracker(record, 60.0)

        def settles(state: State) -> set[str]:
            files.Settling(tracker).look(at_once=True)
            return pending(state)

        monkeypatch.setattr(garbage, "pending", settles)
        monkeypatch.setattr(erasing, "pending", settles)
        for looks in (lambda: set(find_garbage(record, Limits(grace=-60.0)).unnamed), lambda: _unnamed(record)):
            _send(tracker, _model(tracker))
            held = pending(record.workspace.state)
            assert len(held) == 1
            assert not held & looks()
            assert not pending(record.workspace.state)


def test_what_waits_is_pushed_and_pulled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote = str(tmp_path / "remote")
    with open_or_make_record(tmp_path) as record:
        tracker = Tracker(record, 60.0)
        _send(tracker, _model(tracker), b"sent")
        held = pending(record.workspace.state)
        assert held <= expected_objects(record.workspace)
        assert not push(record, remote, tmp_path).problems
        record.store.delete(held)
        assert not pull(record, remote, tmp_path).problems
        assert record.store.read(*held) == b"sent"

        record.store.delete(held)  # a restore without the remote
        files.Settling(tracker).look(at_once=True)
        assert "let go: 1; a restore did not bring them back" in caplog.text
        assert not pending(record.workspace.state)
        assert verify(record.workspace).ok


def test_what_was_erased_may_be_sent_again(tmp_path: Path) -> None:
    with open_or_make_record(tmp_path) as record:
        tracker = Tracker(record, 60.0)
        model = _model(tracker)
        for data in (b"first", b"second"):
            _send(tracker, model, data)
        doomed = _unnamed(record)
        assert doomed == {blake3_bytes(b"first")}
        suppression, request = record.erasures.extend({}).digest, new_id("era")
        for phase in ("deleting", "done"):
            record.erasures.record(request, "p", phase, suppression, objects=sorted(doomed))
        record.store.delete(doomed)
        _send(tracker, model, b"first")
        assert verify(record.workspace).ok
        assert not push(record, str(tmp_path / "remote"), tmp_path).problems
        files.Settling(tracker).look(at_once=True)
        assert verify(record.workspace).ok


def test_the_name_of_a_model_that_was_erased_is_free(tmp_path: Path) -> None:
    with open_or_make_record(tmp_path) as record:
        tracker = Tracker(record, 60.0)
        for word in (b"one", b"two"):
            registered_models.create(tracker, Fields({"name": "Ann Poe"}))
            model = _model(tracker)
            _send(tracker, model, word)
            made = model_versions.create(tracker, Fields({"name": "Ann Poe", "source": f"models:/{model}"}))
            assert made["model_version"]["version"] == "1"
            cards = record.workspace.database.query("SELECT texts FROM cards WHERE kind = 'registered_model'")
            record.store.delete({str(row[0]) for row in cards})
        assert len(record.versions.projects("model")) == 2


def test_half_a_character_is_refused_like_any_other(server: Listener) -> None:
    sent = {"content": b'{"name": "\\ud800"}', "headers": {"Content-Type": "application/json"}}
    answer = server.http.post(f"{API}registered-models/get-latest-versions", **sent)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")

"""``treadle listen mlflow`` in a process of its own, and a client that speaks plain HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

API = "/api/2.0/mlflow/"
FILES = "/api/2.0/mlflow-artifacts/artifacts/"


@dataclass
class Listener:
    """A running server."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    http: httpx.Client

    def call(self, path: str, *, method: str = "POST", expect: int = 200, **fields: Any) -> Any:
        """One call; in a GET the fields are the query."""
        sent: dict[str, Any] = {"params": fields} if method == "GET" else {"json": fields}
        answer = self.http.request(method, API + path, **sent)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path: str, **fields: Any) -> Any:
        """A call that reads."""
        return self.call(path, method="GET", **fields)

    def refused(self, path: str, code: str, *, method: str = "POST", expect: int = 400, **fields: Any) -> str:
        """What a call is refused with."""
        told = self.call(path, method=method, expect=expect, **fields)
        assert told["error_code"] == code, told
        return str(told["message"])

    def begin(self, experiment: str = "0", **fields: Any) -> str:
        """A new run; its id."""
        run = self.call("runs/create", experiment_id=experiment, start_time=1_700_000_000_000, **fields)["run"]
        return str(run["info"]["run_id"])

    def run(self, identifier: str) -> Any:
        """A run as it is."""
        return self.get("runs/get", run_id=identifier)["run"]

    def metric(self, run: str, value: float | str, step: int = 0, key: str = "loss", **more: Any) -> None:
        """One number."""
        moment = 1_700_000_000_000 + step
        self.call("runs/log-metric", run_id=run, key=key, value=value, timestamp=moment, step=step, **more)

    def upload(self, run: str, path: str, data: bytes, *, expect: int = 200, experiment: str = "0") -> httpx.Response:
        """One file of a run."""
        answer = self.http.put(f"{FILES}{experiment}/{run}/artifacts/{path}", content=data)
        assert answer.status_code == expect, answer.text
        return answer

    def stop(self) -> None:
        """As a service manager does it."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said


def values(pairs: list[dict[str, str]]) -> dict[str, str]:
    """Settings or tags as a dictionary."""
    return {pair["key"]: pair["value"] for pair in pairs}


@contextmanager
def listening(folder: Path, *options: str, **environment: str) -> Iterator[Listener]:
    """The server, for as long as the block lasts."""
    command = [sys.executable, "-m", "treadle", "listen", "mlflow", "--port", "0", "--json", *options]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert told, process.communicate(timeout=30)[1]
        url = json.loads(told)["url"]
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            yield Listener(url, folder, process, http)
    finally:
        process.kill()
        process.communicate(timeout=60)

"""The dashboard asks for what a server tells, in PromQL that Prometheus can read."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from test_following import until
from toy_server import Served, serve_toy

from debian import program
from described_release import described
from treadle.integrations.grafana import dashboard, queries
from treadle.stages.deploy.targets import render


def test_every_metric_is_one_that_a_server_has() -> None:
    with serve_toy() as served:
        told = httpx.get(f"{served.url}/metrics").text
    known = {family.name for family in text_string_to_metric_families(told)}
    # Of servers behind this one and others that no request met yet nothing is told before there are some.
    known |= {"treadle_upstream_running_requests", "treadle_upstream_open"}
    asked = {name for query in queries() for name in re.findall(r"treadle_\w+", query)}
    assert len(asked) > 15
    assert {re.sub(r"_(total|bucket)$", "", name) for name in asked} <= known


def test_it_is_rendered_beside_the_image(tmp_path: Path) -> None:
    release = described()
    render("docker", release, tmp_path, {})
    data = (tmp_path / "grafana" / "treadle.json").read_bytes()
    assert data == dashboard(release.spec.name)
    panels = json.loads(data)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["targets"] and panel["title"] for panel in panels)
    (source,) = yaml.safe_load((tmp_path / "grafana" / "datasource.yaml").read_text())["datasources"]
    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {source["uid"]}
    told = yaml.safe_load((tmp_path / "compose.yaml").read_text())["configs"]["scrape"]["content"]
    # Grafana takes four times this as the interval of a rate: of less, a rate would have one count alone.
    assert source["jsonData"]["timeInterval"] == yaml.safe_load(told)["global"]["scrape_interval"]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """A server, and the URL of a Prometheus that asks it every second."""
    found = program("prometheus")
    with serve_toy() as served, socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
        job = {"job_name": "treadle", "static_configs": [{"targets": [served.url.removeprefix("http://")]}]}
        told = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(told))
        free.close()
        places = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data")
        process = subprocess.Popen([found, *places, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
        try:
            yield served, f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def test_a_real_prometheus_answers_its_queries(prometheus: tuple[Served, str]) -> None:
    served, url = prometheus

    def answer(query: str) -> list[Any]:
        done = httpx.get(f"{url}/api/v1/query", params={"query": query.replace("$__rate_interval", "1m")})
        assert done.status_code == 200, done.text
        found: list[Any] = done.json()["data"]["result"]
        return found

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def counted() -> bool:
        assert served.chat().status_code == 200
        return any(row["value"][1] not in ("0", "NaN") for row in answer(queries()[0]))

    until(ready, 60)
    until(counted, 60)
    rows = {query: answer(query) for query in queries()}
    drawn = [query for query, found in rows.items() if found]
    assert len(drawn) > 12  # of the rest nothing has happened yet: no key, no guardrail, no server behind
    assert not any("key" in query or "upstream" in query for query in drawn)

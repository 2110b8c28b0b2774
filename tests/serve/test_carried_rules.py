"""Without its project a release is served by the rules of the project's file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_carried_keys import carried, write_release
from toy_keys import ask
from toy_server import serve_toy

from treadle.core.digest import canonical_json
from treadle.record.recording import USUAL, Recording
from treadle.stages.deploy import DeploySettings
from treadle.stages.deploy.bundling import for_gateway
from treadle.stages.deploy.carried import read_carried
from treadle.stages.monitor import MonitorSettings

STRICT = Recording("none", 3600.0, "help")


def test_a_release_carries_what_is_not_as_usual() -> None:
    assert MonitorSettings().recording(None) == USUAL
    assert for_gateway(DeploySettings(), USUAL, None) == {}
    settings = DeploySettings.model_validate({"slo": {"ttft": "2s"}, "max_in_flight": 7})
    found = for_gateway(settings, STRICT, None)
    assert found == {
        "recording": {"mode": "none", "retention": 3600.0, "purpose": "help"},
        "slo": {"ttft": "2s"},
        "max_in_flight": 7,
    }
    assert Recording.carried(found["recording"]) == STRICT
    assert Recording.carried(None) == USUAL


@pytest.mark.parametrize("strict", [False, True])
def test_it_is_served_by_them(strict: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TREADLE_API_KEY", "TREADLE_KEYS_DATABASE"):
        monkeypatch.delenv(variable, raising=False)
    with serve_toy() as behind:
        folder = write_release(tmp_path / "release", behind.url)
        if strict:
            settings = DeploySettings.model_validate({"slo": {"ttft": "60s"}, "max_in_flight": 7})
            spec = replace(read_carried(folder).spec, settings=for_gateway(settings, STRICT, None))
            (folder / "release.json").write_bytes(canonical_json(spec.to_json()))
        with carried(folder, 0) as served:
            assert ask(served.url, None).status_code == 200
            limit = _metric(served.url, "treadle_in_flight_limit")
    row: dict[str, Any] = served.rows()[0]
    assert (row["answer"] is None) is strict
    assert row.get("purpose") == ("help" if strict else None)
    assert limit <= 7 if strict else limit == 256


def _metric(url: str, name: str) -> float:
    (line,) = (each for each in httpx.get(f"{url}/metrics").text.splitlines() if each.startswith(name))
    return float(line.split()[-1])

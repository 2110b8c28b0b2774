"""What a release says of its requests is what the server that opens it does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from toy_engine import ToyEngine, ToyTokenizer

from treadle.core.artifacts import Builder
from treadle.core.digest import canonical_json
from treadle.core.errors import UserError
from treadle.core.workspace import Workspace
from treadle.lm.upstream_settings import UpstreamSettings
from treadle.record.record import PROJECTIONS, Record
from treadle.record.recording import USUAL
from treadle.record.release import Release, ReleaseSpec
from treadle.serve.guardrail import Stopped, screened
from treadle.serve.guardrail_settings import described
from treadle.serve.release import Price, Serving
from treadle.stages.deploy import DeploySettings
from treadle.stages.deploy.bundling import for_gateway
from treadle.stages.deploy.serving import open_release


def opened(folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Serving:
    async def engine(*_: object, **__: object) -> ToyEngine:
        return ToyEngine(ToyTokenizer())

    monkeypatch.setattr("treadle.lm.engines.open_engine", engine)
    monkeypatch.setenv("TREADLE_PROJECT", str(folder))
    spec = ReleaseSpec(
        "docs", "classify", "b3:" + "0" * 64, "b3:" + "1" * 64, {}, "toy", asking="classify", settings=settings
    )
    with Workspace(folder / "store", projections=PROJECTIONS) as workspace:
        with Builder(Release, workspace.store) as builder:
            (builder.path / "release.json").write_bytes(canonical_json(spec.to_json()))
            release = builder.commit()
        return asyncio.run(open_release(Record(workspace, "docs"), release))


def test_price_and_guardrails_of_the_file_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = DeploySettings.model_validate(
        {
            "price": {"prompt": 0.1, "completion": 0.4},
            "guardrails": {"in": [{"block_list": {"words": ["bomb"]}}], "out": ["personal_data"]},
        }
    )
    serving = opened(tmp_path, for_gateway(file, USUAL, tmp_path), monkeypatch)
    assert serving.release.price == Price("USD", 0.1, 0.4)
    assert [each.name for each in serving.guardrails.outward] == ["personal_data"]
    with pytest.raises(Stopped):
        screened(serving.guardrails.inward, ["a BOMB"])
    assert for_gateway(DeploySettings(), USUAL, tmp_path) == {}


def test_a_mistake_in_the_file_is_found_before_anything_is_trained() -> None:
    for wrong, said in (
        ("persnal_data", "did you mean 'personal_data'"),
        ({"size": {"characters": 0}}, "at least one"),
    ):
        with pytest.raises(ValueError, match=said):
            DeploySettings.model_validate({"guardrails": {"in": [wrong]}})
    DeploySettings.model_validate({"guardrails": {"out": ["my_guards:Mine"]}})


def test_code_that_changed_since_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "class Quiet:\n    action, reach = 'refuse', 0\n    def find(self, text, before=0):\n        return []\n"
    (tmp_path / "quiet_guards.py").write_text(source)
    told = {"guardrails": described({"in": ["quiet_guards:Quiet"]}, tmp_path)}
    assert opened(tmp_path, told, monkeypatch).guardrails.inward[0].name == "quiet_guards:Quiet"
    (tmp_path / "quiet_guards.py").write_text(source + "\nclass Loud(Quiet):\n    pass\n")
    with pytest.raises(UserError, match="not the one that the release was made with"):
        opened(tmp_path, told, monkeypatch)


def test_where_a_release_is_run_elsewhere_is_part_of_it_and_said_in_one_place() -> None:
    upstream = {"urls": ["http://127.0.0.1:1/v1"], "model": "docs", "api_key": "${env:UPSTREAM_KEY}"}
    file = DeploySettings.model_validate({"engine": "upstream", "upstream": upstream})
    assert file.upstream is not None
    written = file.upstream.model_dump(mode="json")
    assert written["api_key"] == "${env:UPSTREAM_KEY}"
    assert UpstreamSettings.model_validate(written) == file.upstream
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"engine": "upstream"}, "go together"),
        ({"upstream": upstream}, "go together"),
        ({"engine": "upstream", "upstream": upstream, "optimization": {"way": "onnx"}}, "for engines here"),
        ({"engine": "upstream", "upstream": upstream | {"api_key": "sk-secret-in-file"}}, "does not stand in the file"),
        ({"engine": "upstream", "upstream": upstream | {"urls": []}}, "at least 1"),
        ({"shadow": {"release": "@challenger", "share": 0}}, "greater than 0"),
        ({"fallback": ""}, "at least 1"),
    ]
    for settings, said in wrong:
        with pytest.raises(ValueError, match=said):
            DeploySettings.model_validate(settings)

"""A release on the real Triton of nvidia-pytriton's wheel: what it answers is what `treadle serve` answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from test_targets import carried

import target_results
from containers import ROOT, free_port
from small_project import Project
from tiny_models import VOCABULARY, write_encoder, write_tokenizer
from treadle.core.digest import canonical_json
from treadle.record.release import ReleaseSpec
from treadle.stages.deploy.carried import own_record, read_carried
from treadle.stages.deploy.targets import QUESTION, Rendering, carry_out, find_target, render, smoke

pytestmark = pytest.mark.slow
ENVIRONMENT = Path(os.environ.get("TREADLE_TRITON", ROOT / ".venv-peers" / "triton"))
DEEDS = ("return", "repair", "clean", "register", "charge", "reset", "store", "sell")


@pytest.fixture
def settings() -> dict[str, Any]:
    """Of the target; skips where the wheel is not installed."""
    if not list(ENVIRONMENT.glob("lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver")):
        pytest.skip(f"no Triton: python -m venv {ENVIRONMENT} && {ENVIRONMENT}/bin/pip install nvidia-pytriton==0.7.0")
    return {"environment": str(ENVIRONMENT), "port": free_port()}


def texts_of(texts: list[str]) -> list[triton.InferInput]:
    """As Triton's client has them."""
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=object))
    return [tensor]


def servers_of(folder: Path) -> list[int]:
    """Processes that answer with the release in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"-c" in words and bytes(folder / "release") in words:
            found.append(int(path.parent.name))
    return found


def test_the_same_text_as_from_the_project(project: Project, tmp_path: Path, settings: dict[str, Any]) -> None:
    out, port = tmp_path / "triton", settings["port"]
    given = [part for key, value in settings.items() for part in ("--with", f"{key}={value}")]
    release = project.json("render", "triton", "--out", str(out), *given)["release"]
    assert project.json("render", "triton", "--out", str(out), *given)["changed"] == []
    expected = project.json("ask", QUESTION)["answer"]
    try:
        said = project.json("apply", "triton", str(out))
        assert (said["answer"], said["release"]) == (expected, release)
        answers_like_the_server(out, port, release)
        comes_back_when_killed(out, port)
    finally:
        project.call("apply", "triton", str(out), "--down")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/v2/health/live")
    assert servers_of(out) == []
    with own_record(out / "journal", "helper") as record:
        assert len(list(record.recorder.interactions(release))) == 2 * len(DEEDS) + 2
    wrong = ("--with", "python=/nothing/python")
    project.json("render", "triton", "--out", str(out), *given, *wrong)
    refused = project.call("apply", "triton", str(out), check=2)
    assert "Triton ended: " in refused.stderr
    assert "/nothing/python" in refused.stderr
    target_results.keep(
        "triton",
        validated="Triton itself: its strict model configuration",
        ran="tritonserver of nvidia-pytriton's wheel, on a CPU: chat, a classifier by ONNX Runtime, an embedder",
        same_text=True,
        digest=True,
    )


def answers_like_the_server(out: Path, port: int, release: str) -> None:
    """Triton's own client is told the same by both, and by Triton also what release it is."""
    # No two servers write into one journal.
    other = out.parent / "other"
    other.mkdir()
    (other / "release").symlink_to(out / "release")
    texts = [f"How do I {deed} my lamp?" for deed in DEEDS]
    asked, how = texts_of(texts), {"max_tokens": 9, "temperature": 0.0}
    with carried(other, "--digest", release, "--name", "helper@v1") as url:
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            mine = client.infer("helper", asked, parameters=how)
            told = client.get_model_metadata("helper")
        refusal = httpx.post(f"{url}/v2/models/helper/infer", json=wrong(texts)).json()
    with triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=8) as client:
        config = client.get_model_config("helper")
        assert config["parameters"]["release"]["string_value"] == release
        metadata = client.get_model_metadata("helper")
        assert (metadata["name"], metadata["versions"]) == (told["name"], told["versions"])
        assert metadata["outputs"][:-2] == told["outputs"]
        assert metadata["inputs"] == told["inputs"]
        found = client.infer("helper", asked, model_version="1", parameters=how)
        assert found.as_numpy("text").tolist() == mine.as_numpy("text").tolist()
        assert found.as_numpy("release").tolist() == [release.encode()]
        assert len({*found.as_numpy("interaction")}) == len(texts)
        closed = httpx.post(f"http://127.0.0.1:{port}/v2/logging", json={"log_file": str(out / "written")})
        assert (closed.status_code, (out / "written").exists()) == (403, False)
        refused = httpx.post(f"http://127.0.0.1:{port}/v2/models/helper/infer", json=wrong(texts))
        assert (refused.status_code, refused.json()["error"]) == (400, refusal["error"])
    many_at_once(port, texts, [text.decode() for text in found.as_numpy("text")])


def wrong(texts: list[str]) -> dict[str, Any]:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": texts[:1]}
    return {"inputs": [tensor], "parameters": {"max_tokens": -1}}


def many_at_once(port: int, texts: list[str], answers: list[str]) -> None:
    """Each of those who ask at the same time gets their own answer."""

    def ask(text: str) -> str:
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
        body = {"inputs": [tensor], "parameters": {"max_tokens": 9, "temperature": 0}}
        said = httpx.post(f"http://127.0.0.1:{port}/v2/models/helper/infer", json=body, timeout=60).json()
        answer: str = said["outputs"][0]["data"][0]
        return answer

    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(ask, texts)) == answers


def comes_back_when_killed(out: Path, port: int) -> None:
    """The release's process is opened anew by the next request; with Triton itself all of it ends."""
    (before,) = servers_of(out)
    os.kill(before, signal.SIGKILL)
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Hello"]}]}
    said = httpx.post(f"http://127.0.0.1:{port}/v2/models/helper/infer", json=body, timeout=60)
    assert said.status_code == 200, said.text
    (after,) = servers_of(out)
    assert after != before
    os.kill(int((out / "triton.pid").read_text()), signal.SIGKILL)
    until = time.monotonic() + 30
    while servers_of(out) and time.monotonic() < until:
        time.sleep(0.1)
    assert servers_of(out) == []


def test_triton_checks_what_it_loads(project: Project, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Its strict configuration, and the digest, when clients load and unload the model."""
    out, url = tmp_path / "triton", f"http://127.0.0.1:{settings['port']}"
    given = [part for key, value in settings.items() for part in ("--with", f"{key}={value}")]
    release = project.json("render", "triton", "--out", str(out), *given)["release"]
    project.call("export", "folder", release, "--out", str(out / "release"))
    start = (out / "start.sh").read_text()
    explicit = start.replace("--model-repository=models", "--model-repository=models --model-control-mode=explicit")
    (out / "explicit.sh").write_text(explicit.replace("word=$(", "word=open  # $("))
    subprocess.run(["sh", "explicit.sh"], cwd=out, check=True)
    try:
        with httpx.Client(base_url=url, headers={"word": "open"}, timeout=120) as client:
            until_live(client)
            loaded = client.post("/v2/repository/models/helper/load")
            assert loaded.status_code == 200, loaded.text
            assert client.get("/v2/models/helper/ready").status_code == 200
            assert client.post("/v2/repository/models/helper/unload").status_code == 200
            until = time.monotonic() + 60
            while servers_of(out) and time.monotonic() < until:
                time.sleep(0.1)
            assert servers_of(out) == []
            config = out / "models" / "helper" / "config.pbtxt"
            kept = config.read_text()
            config.write_text(kept.replace("TYPE_STRING", "TYPE_STRIN"))
            refused = client.post("/v2/repository/models/helper/load")
            assert refused.status_code >= 400
            assert "failed to poll" in refused.json()["error"]
            config.write_text(kept)
            spec = out / "release" / "release.json"
            spec.chmod(0o644)
            spec.write_bytes(spec.read_bytes().replace(b"You help.", b"You hurt."))
            refused = client.post("/v2/repository/models/helper/load")
            assert refused.status_code >= 400
            assert "files were changed" in refused.json()["error"]
    finally:
        subprocess.run(["sh", "stop.sh"], cwd=out, check=True)


def until_live(client: httpx.Client) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if client.get("/v2/health/live").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("no Triton")


def write_carried(folder: Path, asking: str, engine: str) -> Rendering:
    """A release in ``folder/release`` that takes a text: a tiny classifier as ONNX, or an encoder."""
    model = folder / "release" / "model"
    model.mkdir(parents=True)
    if asking == "embed":
        write_encoder(model, ["What can you do?", "the value of the object"])
    else:
        write_classifier(folder / "source", model)
    spec = ReleaseSpec("intents", asking, "b3:" + "1" * 64, "b3:" + "2" * 64, {}, engine, asking=asking)
    (folder / "release" / "release.json").write_bytes(canonical_json(spec.to_json()))
    digest = read_carried(folder / "release").digest
    return Rendering(digest, "intents@v3", spec, engine, 1)


def write_classifier(source: Path, out: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from treadle.integrations.onnx_export import export
    from treadle.lm.optimizations import copy_beside

    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        id2label={0: "no", 1: "perhaps", 2: "yes"},
    )
    source.mkdir()
    write_tokenizer(source)
    BertForSequenceClassification(config).save_pretrained(source)
    export(source, out, inputs=2)
    copy_beside(source, out)


@pytest.mark.parametrize(("asking", "engine"), [("classify", "onnx"), ("embed", "transformers")])
def test_models_that_write_nothing(tmp_path: Path, settings: dict[str, Any], asking: str, engine: str) -> None:
    release = write_carried(tmp_path, asking, engine)
    written, _ = render("triton", release, tmp_path, settings)
    target = find_target("triton", settings, None)
    path, texts = {"classify": "/v1/classify", "embed": "/v1/embeddings"}[asking], [QUESTION, "the value", "a"]
    with carried(tmp_path, "--digest", release.digest) as url:
        mine = httpx.post(f"{url}{path}", json={"input": texts}, timeout=60).json()["data"]
    try:
        plan = target.apply(written)
        carry_out(plan, tmp_path)
        answer = json.loads(smoke(plan, written)) if asking == "classify" else smoke(plan, written)
        with triton.InferenceServerClient(f"127.0.0.1:{settings['port']}") as client:
            found = client.infer("intents", texts_of(texts), model_version="3")
        assert found.as_numpy("release").tolist() == [release.digest.encode()]
        if asking == "classify":
            assert [text.decode() for text in found.as_numpy("label")] == [each["label"] for each in mine]
            expected = [list(each["probabilities"].values()) for each in mine]
            assert np.abs(found.as_numpy("probabilities") - np.array(expected)).max() < 1e-6
            assert answer["label"] == mine[0]["label"]
        else:
            expected = [each["embedding"] for each in mine]
            assert np.abs(found.as_numpy("embedding") - np.array(expected)).max() < 1e-6
    finally:
        carry_out(target.down(written), tmp_path)
    assert servers_of(tmp_path) == []

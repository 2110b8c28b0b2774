"""A project whose releases keep their adapter beside one base: trained, served, gone on with, and followed back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from cycle.test_follow import Load, serving
from cycle.test_second_turn import ADVICE, answered, correct
from small_project import Project, make_project
from tiny_models import write_wide_model
from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.engines import BlockingEngine
from treadle.lm.model import Model
from treadle.project import open_project
from treadle.record.release import Release
from treadle.record.version import Version
from treadle.stages.track.walk import lineage

VLLM = bool(os.environ.get("TREADLE_VLLM_PYTHON"))
QUANTIZE = "  quantize: {format: q8_0, max_loss: 0.5}\n"


def keep_apart(project: Project, engine: str = "transformers") -> Project:
    """Adapters beside the base, from now on."""
    project.edit("develop:\n", "develop:\n  method: lora\n")
    project.edit("tokens: 3000", "tokens: 9000")
    project.edit(QUANTIZE, f"  engine: {engine}\n  adapter: separate\n")
    return project


@pytest.fixture(scope="module")
def turned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after two turns, the second of which learned from corrections."""
    project = keep_apart(make_project(tmp_path_factory.mktemp("apart") / "own", base))
    project.json("run")
    two_turns(project)
    return project


def two_turns(project: Project) -> None:
    correct(project, answered(project, len(ADVICE), name=lambda number: f"int-01M84{number:021}"), ADVICE)
    project.json("watch", "--once")


def releases_of(record: Any) -> list[tuple[Version, Release]]:
    """Versions of the model, the oldest first, with the release of each."""
    found = []
    runs = record.runs.find(step="deploy.bundle", status="done")
    for version in sorted(record.versions.all("model"), key=lambda each: each.number):
        (made,) = [run for run in runs if version.digest in run.inputs.values()]
        found.append((version, Release(next(iter(made.outputs.values())), record.store)))
    return found


@pytest.mark.slow
def test_two_turns_are_beside_one_base_and_each_is_followed_back(turned: Project, base: Path) -> None:
    weights = blake3_file(base / "model.safetensors")
    with open_project(turned.folder) as opened:
        releases = releases_of(opened.record)
        assert len(releases) == 2
        told = [release.read().optimization["adapter"] for _, release in releases]
        assert told[0]["base"] == told[1]["base"]
        assert told[0]["digest"] != told[1]["digest"]
        assert [each["rank"] for each in told] == [16, 16]
        for version, release in releases:
            files = {entry.path: entry.digest for entry in release.entries()}
            assert files["model/model.safetensors"] == weights  # the same bytes as outside, kept once
            model = Model(version.digest, opened.record.store)
            assert files["adapter/adapter_model.safetensors"] == blake3_file(
                model.path() / "adapter" / "adapter_model.safetensors"
            )
            assert model.about()["training"]["adapter"]["base"] == model.about()["base_model"]["digest"]
            kinds = {node.kind for node in lineage(opened.record, release.digest, limit=1_000).nodes.values()}
            assert {"release", "model", "dataset", "document"} <= kinds
        documents = [set(release.document_ids()) for _, release in releases]
        assert documents[0]
        assert documents[1] - documents[0]  # the corrections


def _apart(first: list[float], second: list[float]) -> float:
    """The mean difference."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


@pytest.mark.slow
def test_an_answer_is_that_of_the_merged_model(turned: Project) -> None:
    pairs = [([1, 50, 60, 70], [80, 90, 100]), ([1, 9], [12, 2])]
    with open_project(turned.folder) as opened:
        said = []
        for version, release in releases_of(opened.record):
            folders = (release.path(), Model(version.digest, opened.record.store).path())
            models = [torch_runtime.load(folder, AutoModelForCausalLM) for folder in (folders[0] / "model", folders[1])]
            merged, kept = (model.state_dict() for model in models)
            assert all(torch.equal(merged[name].bfloat16().float(), tensor) for name, tensor in kept.items())
            for folder in folders:
                with BlockingEngine("transformers", folder, threads=1, settings={"precision": "f32"}) as engine:
                    said.append([value for score in engine.score(pairs) for value in score.logprobs])
    rounded = max(_apart(said[0], said[1]), _apart(said[2], said[3]))  # the merged model's weights are of 16 bits
    assert rounded < 0.05 < _apart(said[0], said[2])
    assert rounded < 0.25 * _apart(said[0], said[2])
    answer = turned.json("ask", "How do I reset my radio?")
    with open_project(turned.folder) as opened:
        assert answer["release"] == opened.record.versions.served()


@pytest.mark.slow
def test_a_release_that_was_carried_away_is_opened_with_its_adapter(turned: Project, tmp_path: Path) -> None:
    with open_project(turned.folder) as opened:
        _, release = releases_of(opened.record)[0]
    turned.call("export", "folder", release.digest, "--out", str(tmp_path / "away"))
    with BlockingEngine("auto", tmp_path / "away", threads=1) as engine:
        assert engine.name == "transformers"
    path = tmp_path / "away" / "adapter" / "adapter_model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-5])
    with (
        pytest.raises(UserError, match="truncated or damaged"),
        BlockingEngine("auto", tmp_path / "away", threads=1),
    ):
        pass
    expected = ("--digest", release.digest, "--journal", str(tmp_path / "journal"))
    said = turned.call("serve", "--port", "0", "--release-folder", str(tmp_path / "away"), *expected, check=1)
    assert "files were changed, added or lost" in said.stderr


@pytest.mark.slow
def test_a_hub_folder_and_a_gguf_are_of_the_merged_model(turned: Project, tmp_path: Path) -> None:
    turned.call("render", "huggingface", "--out", str(tmp_path / "hub"), "--with", "license=apache-2.0")
    assert not list((tmp_path / "hub").rglob("adapter*"))
    assert (tmp_path / "hub" / "model.safetensors").is_file()


@pytest.mark.slow
def test_beside_a_model_that_was_pretrained_here(base: Path, tmp_path: Path) -> None:
    project = keep_apart(make_project(tmp_path / "own", base))
    project.edit("develop:\n", "develop:\n  pretrain: {tokens: 2000, width: 64, batch: 4}\n")
    project.json("run")
    two_turns(project)
    with open_project(project.folder) as opened:
        (read,) = opened.record.runs.find(step="develop.pretrain", status="done")
        pretrained = Model(next(iter(read.outputs.values())), opened.record.store)
        weights = blake3_file(pretrained.path() / "model.safetensors")
        for version, release in releases_of(opened.record):
            model = Model(version.digest, opened.record.store)
            assert model.adapter_base() == pretrained.digest
            files = {entry.path: entry.digest for entry in release.entries()}
            assert files["model/model.safetensors"] == weights
            assert set(pretrained.document_ids()) <= set(release.document_ids())


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([("method: lora", "method: full")], "separate is for chat with develop.method: lora"),
        ([("  adapter: sep", f"{QUANTIZE}  adapter: sep")], "leave out quantize, or set adapter: merged"),
        ([("engine: transformers", "engine: openvino")], "engine openvino loads no adapters"),
    ],
)
def test_what_cannot_be_kept_apart_is_said_before_anything_is_done(
    fresh: Callable[[], Project], edits: list[tuple[str, str]], said: str
) -> None:
    project = keep_apart(fresh())
    for old, new in edits:
        project.edit(old, new)
    done = project.call("plan", check=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_without_an_adapter_says_so(project: Project) -> None:
    """One that was trained as a whole, and is to be judged and released as it is."""
    with open_project(project.folder) as opened:
        folder = project.folder.parent / "outside"
        folder.mkdir()
        for path in Model(opened.record.versions.all("model")[0].digest, opened.record.store).path().iterdir():
            if path.name not in ("treadle.json", "documents.ids"):
                shutil.copyfile(path, folder / path.name)
    keep_apart(project)
    project.call("import", "model", str(folder), "--license", "CC0-1.0")
    said = project.call("run", check=2).stderr
    assert "has no adapter to keep apart, as chat with develop.method: lora leaves one; " in said
    assert "set deploy.adapter: merged" in said


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="TREADLE_VLLM_PYTHON names no environment with vLLM")
def test_a_promotion_and_a_rollback_start_no_other_vllm(tmp_path: Path) -> None:
    project = keep_apart(make_project(tmp_path / "own", write_wide_model(tmp_path / "wide")), "vllm")
    project.json("run")
    two_turns(project)
    with open_project(project.folder) as opened:
        record = opened.record
        (one, first), (two, second) = releases_of(record)
        record.versions.point("champion", one, reason="a test", release=first.digest)
        with serving(project, record) as server:
            server.answering(first.digest)
            (worker,) = server.workers()
            load = Load(server.url, most=8)
            with load.running(clients=4):
                for version, release in [(two, second), (one, first)] * 3:
                    server.promote(version, release.digest)
                    server.answering(release.digest)
                    load.more()
            assert server.workers() == [worker]
    assert {each.status for each in load.said} == {200}
    assert {each.releases for each in load.said} == {frozenset({each.digest}) for each in (first, second)}

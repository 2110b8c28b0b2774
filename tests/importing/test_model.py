"""A model from outside is served, traced and improved, and nothing is trained for that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from importing.test_logs import chat, write
from small_project import Project
from tiny_models import write_model
from treadle.lm.model import Model
from treadle.project import open_project
from treadle.record.report import Report
from treadle.record.turn import TurnInputs
from treadle.record.version import NOT_RECORDED

Fresh = Callable[[], Project]
WANTED = ("Hold it under warm water until the chalk is gone.", "Bring both parts to the desk on the first floor.")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, base: Path, elsewhere: Path) -> tuple[Project, dict[str, Any]]:
    """A project whose first turn judged the imported model, and what that turn said."""
    from small_project import make_project

    project = make_project(tmp_path_factory.mktemp("served"), base)
    project.edit("    - quality: {metric: log_likelihood, beats: base}\n", "")
    project.edit("develop:\n", "monitor: {retention: null}\ndevelop:\n")
    project.json("import", "model", str(elsewhere), "--note", "from the old team")
    return project, project.json("run")


def test_it_is_judged_and_promoted_without_training(served: tuple[Project, dict[str, Any]]) -> None:
    project, said = served
    ran = {step["step"] for stage in said["stages"] for step in stage["steps"]}
    assert said["ok"]
    assert "develop.train" not in ran
    assert {"develop.evaluate", "deploy.bundle", "govern.judge"} <= ran
    status = project.json("status")
    assert status["champion"]["ref"] == "model/helper@v1"
    assert status["turn"]["reasons"] == ["imported model@v1"]
    again = project.json("run")
    assert {step["status"] for stage in again["stages"] for step in stage["steps"]} == {"cached"}
    assert project.json("verify")["ok"]


def test_its_card_says_what_is_not_known(served: tuple[Project, dict[str, Any]]) -> None:
    project, said = served
    digest = next(s["outputs"] for g in said["stages"] for s in g["steps"] if s["step"] == "govern.write_card")
    with open_project(project.folder) as opened:
        card = Report(digest["report"], opened.record.store).path("card.md").read_text()
    assert "license Apache-2.0" in card
    assert "- Trained on: not recorded" in card
    assert "## What it was made from" not in card


def test_an_answer_is_traced_to_it_and_no_further(served: tuple[Project, dict[str, Any]]) -> None:
    project, _ = served
    answer = project.json("ask", "How do I return my kettle?")
    graph = project.json("lineage", answer["id"])
    assert graph["verified"]
    kinds = [node["kind"] for node in graph["nodes"]]
    assert kinds == ["interaction", "release", "model", NOT_RECORDED]


def test_corrections_start_the_next_turn_from_it(served: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copytree(served[0].folder.parent, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy" / "project")
    # A share of corrections becomes test cases, by the last bits of ids: with two, now and then both of them.
    project.edit("  cooldown: 0s\n", "  cooldown: 0s\n  corrections: {test_share: 0.0}\n")
    log = write(tmp_path / "log.jsonl", chat(0), chat(1))
    assert project.json("import", "logs", log, "--model", "@champion")["kept"] == 2
    rows = [{"id": f"chatcmpl-{number}", "wanted": text, "who": "amy"} for number, text in enumerate(WANTED)]
    table = write(tmp_path / "fixes.jsonl", *rows)
    fields = "interaction=id,correction=wanted,user=who"
    assert project.json("import", "feedback", table, "--fields", fields)["kept"] == 2
    said = project.json("watch", "--once")
    assert said["due"] == ["corrections 2 >= 2"]
    assert project.json("status")["champion"]["ref"] == "model/helper@v2"
    trained = project.json("runs", "--step", "develop.train")
    first, second = (version["digest"] for version in _models(project))
    assert trained[0]["inputs"]["start"] == first
    graph = project.json("lineage", "model@v2", "--limit", "0")
    assert {"from": second, "to": first, "role": "made_by"} in graph["edges"]
    assert any(node["kind"] == NOT_RECORDED for node in graph["nodes"])
    learned = [node["label"] for node in graph["nodes"] if node["label"].startswith("correction of int-")]
    assert learned
    with open_project(project.folder) as opened:
        about = Model(second, opened.record.store).about()
    assert about["base_model"]["name"] == NOT_RECORDED
    assert about["base_model"]["license"] == "Apache-2.0"
    assert project.json("forget", "person-0", "--no-rebuild")["interactions"] == 1
    assert project.json("verify")["ok"]


def _models(project: Project) -> list[dict[str, Any]]:
    with open_project(project.folder) as opened:
        return [{"digest": version.digest} for version in opened.record.versions.all("model")]


def test_the_same_import_twice_is_one(fresh: Fresh, elsewhere: Path) -> None:
    project = fresh()
    first = project.json("import", "model", str(elsewhere), "--license", "MIT")
    again = project.json("import", "model", str(elsewhere), "--license", "MIT")
    assert (first["before"], again["before"], first["license"]) == (False, True, "MIT")
    assert {**first, "before": True} == again
    assert len(project.json("runs", "--step", "import.model")) == 1


def test_a_gguf_is_taken_in(fresh: Fresh, elsewhere: Path, tmp_path: Path) -> None:
    from tiny_models import write_release

    write_release(elsewhere, tmp_path / "release")
    said = fresh().json("import", "model", str(tmp_path / "release" / "model" / "model.gguf"))
    assert said["version"] == "model/helper@v1"
    assert said["license"] == NOT_RECORDED


def _broken(kind: str, source: Path, folder: Path) -> None:
    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    if kind == "pickled":
        weights.rename(folder / "pytorch_model.bin")
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "a shard is missing":
        index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif kind == "of another task":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    elif kind == "never taught to chat":
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        del settings["chat_template"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    elif kind == "of other words":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        words = list(tokenizer["model"]["vocab"])
        tokenizer["model"]["vocab"] = {word: place for place, word in enumerate([*words[:100], *words[:99:-1]])}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pickled", "can run code"),
        ("cut", "truncated"),
        ("a shard is missing", "model-00002.safetensors"),
        ("of another task", "needs one that ends in ForCausalLM"),
        ("never taught to chat", "no chat template"),
        ("of other words", "set develop.base_model"),
    ],
)
def test_what_could_not_be_served_is_refused(
    kind: str, words: str, fresh: Fresh, elsewhere: Path, tmp_path: Path
) -> None:
    project, folder = fresh(), tmp_path / "broken"
    _broken(kind, elsewhere, folder)
    said = project.call("import", "model", str(folder), check=2)
    assert words in said.stderr
    assert project.json("runs") == []


def test_a_model_cannot_come_in_while_a_turn_goes_on(fresh: Fresh, tmp_path: Path) -> None:
    project, folder = fresh(), write_model(tmp_path / "late", seed=9)
    with open_project(project.folder) as opened:
        opened.record.turns.begin(("asked for",), TurnInputs(), "")
    assert "turn 1 is going on" in project.call("import", "model", str(folder), check=2).stderr
    assert "no folder and no .gguf file" in project.call("import", "model", "absent", check=2).stderr

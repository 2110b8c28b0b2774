"""A project's release given away: what its record says is on the card, and what others open answers as it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import target_results
from small_project import Project
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine
from treadle.lm.model import Model
from treadle.lm.tokenizer import ChatTokenizer
from treadle.project import open_project

ASKED = "What can you do?"
SYSTEM = "You help."
OPENED = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True)
messages = [{"role": "system", "content": sys.argv[3]}, {"role": "user", "content": sys.argv[2]}]
given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
made = model.generate(**given, do_sample=False, max_new_tokens=8)
print(tokenizer.decode(made[0, given["input_ids"].shape[1]:], skip_special_tokens=True), end="")
"""


def answer_of(project: Project, tokens: int = 16) -> str:
    """What the project's own engine answers by the weights that were trained: the release has them in 8 bits."""
    with open_project(project.folder) as opened:
        (version,) = opened.record.versions.all("model")
        folder = Model(version.digest, opened.record.store).path()
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED}]
        ids = ChatTokenizer.load(folder).encode_chat(messages)
        with BlockingEngine("transformers", folder, settings={"precision": "f32"}, here=True) as engine:
            (said,) = engine.generate_all([GenerateRequest("one", tuple(ids), max_tokens=tokens)])
    return said


def test_the_hub_s_folder_says_what_the_record_does(project: Project, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    out = tmp_path / "hub"
    said = project.json("render", "huggingface", "--out", str(out), "--with", "license=apache-2.0")
    assert project.json("render", "huggingface", "--out", str(out), "--with", "license=apache-2.0")["changed"] == []
    told = ModelCard.load(out / "README.md")
    assert told.data["treadle"]["release"] == said["release"]
    measured = project.json("develop")["evaluations"]["model"]
    assert {each.metric_type for each in told.data.eval_results} == set(measured)
    for each in told.data.eval_results:
        score = measured[each.metric_type]
        assert each.metric_value == pytest.approx(score["value"], rel=1e-5)
        assert each.metric_args["low"] == pytest.approx(score["low"], rel=1e-5)
    assert "**Intended use.** a test" in told.text
    assert "the release serves them as q8_0" in told.text
    assert str(project.folder.parent) not in (out / "README.md").read_text()
    command = [sys.executable, "-I", "-c", OPENED, str(out), ASKED, SYSTEM]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == answer_of(project, 8)
    target_results.keep(
        "huggingface",
        validated="huggingface_hub's ModelCard",
        ran="transformers: its Auto classes, in a process of its own",
        same_text=True,
        digest=True,
    )
    refused = project.call("apply", "huggingface", str(out), "--dry-run", check=2)
    assert "hf upload NAME/MODEL ." in refused.stderr


def test_onnx_runtime_answers_as_the_release(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    out = tmp_path / "onnx"
    said = project.json("render", "onnx", "--out", str(out))
    command = [sys.executable, "-I", str(out / "example.py"), ASKED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"release": said["release"], "answer": answer_of(project)}
    target_results.keep(
        "onnx",
        validated="200 inputs against torch",
        ran="onnxruntime and tokenizers alone, in a process of its own",
        same_text=True,
        digest=True,
    )

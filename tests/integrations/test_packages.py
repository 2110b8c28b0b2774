"""Targets that give a model away: each is opened by the tools it is for, in a process without Treadle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import given_away
import target_results
from given_away import CARD, TEXTS, release_of, write_classifier
from importing.peers import peer
from tiny_models import write_encoder, write_encoder_decoder, write_model
from treadle.core.errors import UserError
from treadle.stages.deploy.targets import Rendering, render

ALONE = """
import runpy, sys
for name in ("torch", "transformers", "treadle", "openvino"):
    sys.modules[name] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    return release_of(tmp_path_factory.mktemp("classifier"), write_classifier)


def label_of(release: Rendering, text: str) -> str:
    from treadle.lm.classification import Classifier

    assert release.trained is not None
    made = Classifier(release.trained.path(), max_length=128)
    (row,) = made.predict([text])
    return made.labels[row.index(max(row))]


def test_transformers_and_the_hub_s_own_parser_read_the_folder(classifier: Rendering, tmp_path: Path) -> None:
    import torch
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import eval_results_to_model_index
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    written, _ = render("huggingface", classifier, tmp_path, {"datasets": ["stanfordnlp/imdb"]})
    card = ModelCard.load(tmp_path / "README.md")
    told = card.data.to_dict()
    assert (told["license"], told["pipeline_tag"], told["datasets"]) == (
        "apache-2.0",
        "text-classification",
        ["stanfordnlp/imdb"],
    )
    assert told["treadle"]["release"] == classifier.digest
    assert "base_model" not in told
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.912346, "test")
    assert result.metric_args == {"low": 0.85, "high": 0.96, "level": 0.95, "items": 40}
    assert result.metric_name == "accuracy, 95 % interval [0.85, 0.96], 40 items"
    assert eval_results_to_model_index("clerk@v3", [result]) == told["model-index"]
    text = (tmp_path / "README.md").read_text()
    assert CARD.text.strip() in text
    assert classifier.digest in text
    assert "/home/jane" not in text
    assert {"model.safetensors", "config.json", "tokenizer.json"} < set(written.files)
    assert not any("documents" in path for path in written.files)
    for path in tmp_path.rglob("*.json"):
        assert str(classifier.trained) not in path.read_text()
        assert "/tmp" not in path.read_text(), f"{path.name} names a place on this machine"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for said in TEXTS:
        with torch.inference_mode():
            logits = model(**tokenizer(said, return_tensors="pt", return_token_type_ids=False)).logits
        assert model.config.id2label[int(logits.argmax())] == label_of(classifier, said)


LOGITS = """
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True, dtype=torch.float32)
with torch.inference_mode():
    logits = model.eval()(torch.tensor([list(range(5, 45))])).logits[0, -1, :20]
print(json.dumps([transformers.__version__, logits.tolist()]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_transformers_4_turns_its_positions_by_the_same_base(tmp_path: Path) -> None:
    programs = peer("transformers-4", "transformers==4.57.6", ours=True)
    render("huggingface", release_of(tmp_path / "llama", write_model, "chat"), tmp_path / "out", {})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] != 10_000

    def logits(python: Path | str) -> list[float]:
        said = subprocess.run([python, "-c", LOGITS, tmp_path / "out"], capture_output=True, text=True, check=True)
        version, found = json.loads(said.stdout)
        assert version.startswith("4." if python == programs / "python" else "5.")
        return list(found)

    ours = logits(sys.executable)
    assert logits(programs / "python") == pytest.approx(ours, abs=1e-4)
    del config["rope_theta"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    assert logits(programs / "python") != pytest.approx(ours, abs=1e-4)


@pytest.mark.parametrize(
    ("base", "settings", "license_"),
    [
        ({"license": "MIT"}, {}, {"license": "mit"}),
        ({"license": "GPL-3.0-or-later"}, {}, {"license": "gpl-3.0"}),
        ({"license": "Our License, v2"}, {}, {"license": "other", "license_name": "our-license-v2"}),
        ({"license": "unknown"}, {}, {"license": "unknown"}),
        ({"license": "not recorded"}, {}, {"license": "unknown"}),
        ({"license": "MIT"}, {"license": "cc-by-4.0"}, {"license": "cc-by-4.0"}),
        (
            {"name": "all-minilm-l6-v2", "origin": "package"},
            {},
            {"license": "apache-2.0", "base_model": "sentence-transformers/all-MiniLM-L6-v2"},
        ),
        ({"name": "us/ours", "origin": "hub us/ours at 1"}, {}, {"license": "apache-2.0", "base_model": "us/ours"}),
        ({"name": "models/base", "origin": "folder base"}, {}, {"license": "apache-2.0"}),
    ],
    ids=str,
)
def test_what_the_card_says_of_licenses_and_bases(
    classifier: Rendering, tmp_path: Path, base: dict[str, str], settings: dict[str, Any], license_: dict[str, str]
) -> None:
    from huggingface_hub import ModelCard

    spec = replace(classifier.spec, base_model={**classifier.spec.base_model, **base})
    render("huggingface", replace(classifier, spec=spec), tmp_path, settings)
    told = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert {key: told[key] for key in ("license", "license_name", "base_model") if key in told} == license_


def test_bad_settings_and_models_are_one_line(classifier: Rendering, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for settings, said in (
        ({"license": "Apache"}, "expected an identifier of the hub"),
        ({"datasets": ["a b"]}, "expected ids of the hub"),
    ):
        with pytest.raises(UserError, match=said):
            render("huggingface", classifier, out, settings)
    with pytest.raises(UserError, match="treadle pull fetches it"):
        render("huggingface", replace(classifier, trained=None), out, {})

    def own(folder: Path) -> None:
        write_classifier(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "treadle_class": "mine:Bag"}))

    with pytest.raises(UserError, match=r"a class of your own \(mine:Bag\)"):
        render("huggingface", release_of(tmp_path / "own", own), out, {})
    render("huggingface", replace(classifier, card=None), tmp_path / "unjudged", {})
    assert "was not measured here" in (tmp_path / "unjudged" / "README.md").read_text()
    assert not out.exists()


def example(folder: Path, text: str) -> dict[str, Any]:
    """What the package's own program says, where there is nothing but ONNX Runtime and tokenizers."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(folder / "example.py"), *text.split()],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checked(folder: Path) -> dict[str, Any]:
    """The package's description, with the outcome of the comparison as it has to be."""
    told: dict[str, Any] = json.loads((folder / "onnx.json").read_text())
    assert told["checked"]["inputs"] == 200
    assert 1e-9 <= told["checked"]["worst_at_most"] <= told["checked"]["tolerance"] == 1e-3
    for line in (folder / "requirements.txt").read_text().splitlines():
        assert line.partition("==")[0] in ("onnxruntime", "tokenizers", "numpy")
    assert len((folder / "example.py").read_text().splitlines()) < 42
    return told


def test_a_classifier_without_treadle(classifier: Rendering, tmp_path: Path) -> None:
    given_away.need("onnx")
    render("onnx", classifier, tmp_path, {})
    assert checked(tmp_path)["release"] == classifier.digest
    for text in (*TEXTS, "a text that spells [SEP] and more", "lamp " * 300):
        said = example(tmp_path, text)
        assert (said["release"], said["answer"]) == (classifier.digest, label_of(classifier, text))
        assert abs(sum(said["scores"].values()) - 1) < 1e-5


def test_vectors_without_treadle(tmp_path: Path) -> None:
    import numpy as np

    from treadle.lm.torch_embedding import Embedder

    given_away.need("onnx")
    release = release_of(tmp_path, lambda folder: write_encoder(folder, TEXTS), "embed")
    render("onnx", release, tmp_path / "out", {})
    checked(tmp_path / "out")
    assert release.trained is not None
    (ours,) = Embedder(release.trained.path(), "cpu", 128)([TEXTS[1]])
    assert np.abs(np.array(example(tmp_path / "out", TEXTS[1])["answer"]) - np.array(ours)).max() < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_answers_without_treadle(family: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from treadle.lm.tokenizer import ChatTokenizer

    given_away.need("onnx")
    release = release_of(tmp_path, lambda folder: write_model(folder, family), "chat", system_prompt="Be brief.")
    render("onnx", release, tmp_path / "out", {})
    checked(tmp_path / "out")
    assert release.trained is not None
    tokenizer = ChatTokenizer.load(release.trained.path())
    model = AutoModelForCausalLM.from_pretrained(release.trained.path()).eval()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the object returns"}]
    ids = torch.tensor([tokenizer.encode_chat(messages)])
    with torch.inference_mode():
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    found = example(tmp_path / "out", "the object returns")
    assert found == {"release": release.digest, "answer": tokenizer.decode(made[0, ids.shape[1] :].tolist())}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_targets_of_sources_without_treadle(family: str, tmp_path: Path) -> None:
    from treadle.lm.engine import GenerateRequest
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.tokenizer import ChatTokenizer

    given_away.need("onnx")
    release = release_of(tmp_path, lambda folder: write_encoder_decoder(folder, family), "summarize")
    render("onnx", release, tmp_path / "out", {})
    checked(tmp_path / "out")
    assert release.trained is not None
    folder = release.trained.path()
    tokenizer = ChatTokenizer.load(folder)
    ids = tokenizer.encode_chat([{"role": "user", "content": "the value of the object"}])
    with BlockingEngine("transformers", folder, settings={"precision": "f32"}, here=True) as engine:
        said = engine.generate_all([GenerateRequest("one", tuple(ids), max_tokens=12)])
    assert [example(tmp_path / "out", "the value of the object")["answer"]] == said


def test_a_head_that_is_not_exported_is_refused(tmp_path: Path) -> None:
    given_away.need("onnx")

    def tagger(folder: Path) -> None:
        from transformers import AutoModelForTokenClassification

        write_encoder(folder, TEXTS)
        AutoModelForTokenClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)

    with pytest.raises(UserError, match="BertForTokenClassification is not exported to ONNX"):
        render("onnx", release_of(tmp_path, tagger, "tag"), tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


SERVED = """
import json, sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
found = []
for ids in json.loads(sys.argv[2]):
    row = tf.constant([ids], tf.int32)
    said = served(input_ids=row, attention_mask=tf.ones_like(row))
    found.append([said["label"].numpy()[0].decode(), said["release"].numpy()[0].decode()])
print(json.dumps(found))
"""


@pytest.mark.slow  # TensorFlow has an environment of its own, which `make test` does not make
def test_tensorflow_opens_the_saved_model(classifier: Rendering, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    from treadle.integrations.tensorflow_serving import TensorFlowServing

    given_away.need("tensorflow-serving")
    written, _ = render("tensorflow-serving", classifier, tmp_path, {})
    assert "models/clerk/3/saved_model.pb" in written.files
    told = json.loads((tmp_path / "tensorflow-serving.json").read_text())
    assert told["signature"]["inputs"] == {"attention_mask": "int32[?,?]", "input_ids": "int32[?,?]"}
    assert told["signature"]["outputs"]["probabilities"] == "float32[?,4]"
    assert (told["release"], told["checked"]["inputs"]) == (classifier.digest, 200)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rows = json.dumps([tokenizer.encode(text).ids for text in TEXTS])
    done = subprocess.run(
        [TensorFlowServing.python(), "-c", SERVED, str(tmp_path / "models" / "clerk" / "3"), rows],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found == [[label_of(classifier, text), classifier.digest] for text in TEXTS]
    target_results.keep("tensorflow-serving", validated="TensorFlow: signature, and 200 inputs against torch")


def test_only_a_bert_that_classifies_becomes_a_saved_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_TENSORFLOW_PYTHON", sys.executable)
    with pytest.raises(UserError, match="expected a BERT that classifies; clerk@v3 is LlamaForCausalLM"):
        render("tensorflow-serving", release_of(tmp_path, write_model, "chat"), tmp_path / "out", {})
    monkeypatch.setenv("TREADLE_TENSORFLOW_PYTHON", str(tmp_path / "none"))
    with pytest.raises(UserError, match="none is no program"):
        render("tensorflow-serving", release_of(tmp_path, write_classifier), tmp_path / "out", {})


def test_the_job_that_builds_engines(classifier: Rendering, tmp_path: Path) -> None:
    given_away.need("tensorrt")
    written, _ = render("tensorrt", classifier, tmp_path / "job", {})
    assert {"build.sh", "model.onnx", "models/clerk/config.pbtxt", "tokenizer.json"} < set(written.files)
    config = (tmp_path / "job" / "models" / "clerk" / "config.pbtxt").read_text()
    assert f'key: "treadle_release" value: {{ string_value: "{classifier.digest}" }}' in config
    # In place of TensorRT's program, which runs beside a card alone: what is seen is how the script calls it.
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ntest -f "${1#--onnx=}" && echo "$@" > "${2#--saveEngine=}"\n')
    program.chmod(0o755)
    path = f"{program.parent}:/usr/bin:/bin"
    done = subprocess.run(["sh", str(tmp_path / "job" / "build.sh")], cwd="/", env={"PATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "job" / "models" / "clerk" / "1" / "model.plan").read_text()
    assert "--maxShapes=input_ids:16x128,attention_mask:16x128" in asked
    target_results.keep("tensorrt", validated="onnx.checker, 200 inputs against torch")

"""ONNX: the outputs of three architectures, the engine beside torch's, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tiny_models import SHAPES, VOCABULARY, write_model, write_tokenizer
from treadle.core.errors import Refused, UserError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

TEXTS = [
    "the object returns",
    "a",
    "the function of the value of the object returns the value",
    "system user [SEP]",
] * 9


def write_other(folder: Path, kind: str) -> Path:
    """A small random model of transformers' own class."""
    import torch
    import transformers

    torch.manual_seed(5)
    small = {"vocab_size": VOCABULARY, "max_position_embeddings": 64}
    if kind == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        config = transformers.T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes)
        model: Any = transformers.T5ForConditionalGeneration(config)
    elif kind == "bart":
        sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in
                 (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(d_model=32, **small, **sizes))
    else:
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, initializer_range=0.3,
            id2label={0: "no", 1: "perhaps", 2: "yes"}, **small,
        )  # fmt: skip
        model = (transformers.BertModel if kind == "encoder" else transformers.BertForSequenceClassification)(config)
    write_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_other(tmp_path_factory.mktemp("model") / "bert", "classifier")


@pytest.mark.parametrize(
    ("kind", "shape", "files"),
    [
        ("classifier", "classifier", ["model.onnx"]),
        ("encoder", "encoder", ["model.onnx"]),
        ("llama", "decoder", ["model.onnx"]),
        ("gpt2", "decoder", ["model.onnx"]),
        ("t5", "encoder-decoder", ["decoder.onnx", "encoder.onnx"]),
        ("bart", "encoder-decoder", ["decoder.onnx", "encoder.onnx"]),
    ],
)
def test_outputs_are_equal_over_two_hundred_inputs(kind: str, shape: str, files: list[str], tmp_path: Path) -> None:
    from treadle.integrations.onnx_export import TOLERANCE, export

    folder = tmp_path / "model"
    model = write_model(folder, kind) if kind in SHAPES else write_other(folder, kind)
    out = tmp_path / "out"
    out.mkdir()
    found = export(model, out)
    assert (found.shape, found.inputs) == (shape, 200)
    assert found.worst < TOLERANCE
    assert sorted(path.name for path in out.iterdir()) == files


def test_a_decoder_goes_on_from_its_keys_and_values(tmp_path: Path) -> None:
    import numpy as np
    import torch
    import transformers

    from treadle.integrations.onnx_export import export, session

    model, out = write_model(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    export(model, out, inputs=2)
    opened = session(out / "model.onnx")
    whole = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    ids, past = np.array([[5, 9, 17]]), {}
    for each in opened.get_inputs()[2:]:
        past[each.name] = np.zeros((1, each.shape[1], 0, each.shape[3]), dtype=np.float32)
    expected, given = ids, ids
    for _ in range(6):
        mask = np.ones((1, expected.shape[1]), dtype=np.int64)
        logits, *kept = opened.run(None, {"input_ids": given, "attention_mask": mask, **past})
        with torch.inference_mode():
            wanted = whole(torch.from_numpy(expected)).logits[0, -1].numpy()
        assert np.abs(logits[0, -1] - wanted).max() < 1e-3
        past = dict(zip(past, kept, strict=True))
        given = logits[:, -1:].argmax(-1)
        expected = np.concatenate([expected, given], axis=1)


def test_a_file_that_gives_something_else_is_refused(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from treadle.integrations import onnx_export

    written = onnx_export._Part.write

    def write_then_change(part: Any, out: Path) -> None:
        written(part, out)
        with torch.no_grad():
            part.module.model.classifier.bias += 0.01

    monkeypatch.setattr(onnx_export._Part, "write", write_then_change)
    monkeypatch.setattr(onnx_export._Export, "parts", _once(onnx_export._Export.parts))
    with pytest.raises(Refused, match=r"outputs that are 0\.01 off"):
        onnx_export.export(classifier, tmp_path)


def _once(parts: Any) -> Any:
    """The same parts each time, so that a change to one is seen when it is compared."""
    made: list[Any] = []

    def same(self: Any) -> Any:
        if not made:
            made.extend(parts(self))
        return iter(made)

    return same


def test_the_engine_gives_what_torch_gives(classifier: Path, tmp_path: Path) -> None:
    import numpy as np

    from treadle.integrations.onnx import Onnx
    from treadle.lm.classification import Classifier
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.optimization import Material

    out = tmp_path / "out"
    out.mkdir()
    Onnx().write(Material(classifier, tmp_path), out)
    expected = Classifier(classifier, max_length=64).predict(TEXTS)
    of_nothing = []
    for settings in ({}, {"batch_size": 1}):
        with BlockingEngine("auto", out, settings=settings) as opened:
            assert opened.name == "onnx"
            found = opened.classify(TEXTS)
            of_nothing.append(opened.classify([*TEXTS, ""])[-1].probabilities)
            with pytest.raises(UserError, match="only classifies"):
                opened.score([([1, 2], [3])])
        assert found[0].labels == ("no", "perhaps", "yes")
        assert np.abs(np.array([each.probabilities for each in found]) - np.array(expected)).max() < 1e-4
    assert np.allclose(*of_nothing, atol=1e-5)  # whatever it was beside


def test_what_is_no_model_is_one_clear_line(classifier: Path, tmp_path: Path) -> None:
    from treadle.integrations.onnx import OnnxBackend, OnnxEngine
    from treadle.lm.optimizations import copy_beside

    copy_beside(classifier, tmp_path)
    with pytest.raises(UserError, match=r"no model\.onnx"):
        OnnxEngine.check(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07cut off")
    with pytest.raises(UserError, match=r"model\.onnx: onnxruntime cannot open it"):
        OnnxBackend.open(tmp_path, 1, {})


@pytest.mark.parametrize(("kind", "parts"), [("classifier", ["clerk"]), ("t5", ["clerk-decoder", "clerk-encoder"])])
def test_a_tensorrt_job_names_every_input(kind: str, parts: list[str], tmp_path: Path) -> None:
    import onnx

    from treadle.core.artifacts import Builder
    from treadle.core.store import Store
    from treadle.integrations.onnx_files import export_onnx, export_tensorrt
    from treadle.lm.model import Model

    with Builder(Model, Store(tmp_path / "store")) as model:
        write_other(model.path, kind)
        made = model.commit()
    done = export_tensorrt(made, "clerk", tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        export_onnx(made, "clerk", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "models").iterdir()) == parts
    assert done.files == 1 + 2 * len(parts)
    script = (tmp_path / "out" / "build.sh").read_text()
    for part in parts:
        source = tmp_path / "out" / f"{part.partition('-')[2] or 'model'}.onnx"
        graph = onnx.load(str(source)).graph
        config = (tmp_path / "out" / "models" / part / "config.pbtxt").read_text()
        for each in (*graph.input, *graph.output):
            assert f'name: "{each.name}"' in config
        for each in graph.input:
            assert script.count(f"{each.name}:1x1") >= 1
    assert script.count("trtexec") == len(parts)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_a_tensorrt_job_asks_for_shapes_that_the_graph_takes(kind: str, tmp_path: Path) -> None:
    """Of each profile; the least that a decoder takes is its first step, without keys and values."""
    import numpy as np

    from treadle.integrations.onnx_export import session
    from treadle.integrations.onnx_files import write_tensorrt
    from treadle.lm.model_folder import longest

    model = write_model(tmp_path / "model", kind) if kind in SHAPES else write_other(tmp_path / "model", kind)
    out = tmp_path / "out"
    out.mkdir()
    write_tensorrt(model, "clerk", out)
    kinds = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
    for command in (out / "build.sh").read_text().split("trtexec ")[1:]:
        opened = session(out / command.partition("--onnx=")[2].split()[0])
        least, usual, most = (
            {name: [int(size) for size in sizes.split("x")] for name, sizes in re.findall(r"(\w+):([0-9x]+)", line)}
            for line in re.findall(r"--(?:min|opt|max)Shapes=(\S+)", command)
        )
        for shapes in (least, usual, most):
            opened.run(None, {
                each.name: np.ones(shapes[each.name], dtype=kinds[each.type]) for each in opened.get_inputs()
            })  # fmt: skip
        for name, sizes in usual.items():
            assert all(low <= size <= high for low, size, high in zip(least[name], sizes, most[name], strict=True))
        assert most["attention_mask"] == [16, longest(model)]
        if "past_key_0" in least:
            assert (least["past_key_0"][2], usual["input_ids"][1]) == (0, 1)


def test_openvino_gives_nearly_what_torch_gives(classifier: Path, tmp_path: Path) -> None:
    import numpy as np

    pytest.importorskip("openvino_genai")
    from treadle.integrations.openvino_classifier import OpenVinoClassifierExact
    from treadle.lm.classification import Classifier
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.optimization import Material

    out = tmp_path / "out"
    out.mkdir()
    way = OpenVinoClassifierExact()
    way.write(Material(classifier, tmp_path), out)
    expected = Classifier(classifier, max_length=64).predict(TEXTS)
    with BlockingEngine(way.engine, out, settings=dict(way.settings)) as opened:
        found = opened.classify(TEXTS)
        with pytest.raises(UserError, match="it gives labels"):
            opened.embed(["a"])
    assert found[0].labels == ("no", "perhaps", "yes")
    assert np.abs(np.array([each.probabilities for each in found]) - np.array(expected)).max() < 0.01  # 16-bit weights


def test_eight_bits_are_calibrated_on_the_training_texts(classifier: Path, tmp_path: Path) -> None:
    import numpy as np

    pytest.importorskip("openvino_genai")
    pytest.importorskip("nncf")
    from treadle.integrations.openvino_classifier import OpenVinoClassifier, OpenVinoClassifierInt8
    from treadle.lm.classification import Classifier
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.optimization import Material

    way = OpenVinoClassifierInt8()
    for name in ("short", "without", "out", "plain"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="openvino-int8: no text"):
        way.write(Material(classifier, tmp_path / "without"), tmp_path / "without")
    labeled = [(text, "yes") for text in TEXTS]
    way.write(Material(classifier, tmp_path / "short", labeled=labeled), tmp_path / "out")
    (tmp_path / "other").mkdir()
    OpenVinoClassifier().write(Material(classifier, tmp_path / "other"), tmp_path / "plain")
    assert "FakeQuantize" in (tmp_path / "out" / "openvino_model.xml").read_text()
    sizes = [(tmp_path / name / "openvino_model.bin").stat().st_size for name in ("out", "plain")]
    assert sizes[0] < 0.7 * sizes[1]
    expected = np.array(Classifier(classifier, max_length=64).predict(TEXTS))
    with BlockingEngine(way.engine, tmp_path / "out", settings=dict(way.settings)) as opened:
        found = np.array([each.probabilities for each in opened.classify(TEXTS)])
    assert 0 < np.abs(found - expected).max() < 0.05

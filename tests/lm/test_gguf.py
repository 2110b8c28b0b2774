"""GGUF in both directions: the numbers, the tokens, and what other programs make of them."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from treadle.core.errors import UserError
from treadle.lm.from_gguf import convert_gguf
from treadle.lm.gguf import write_gguf
from treadle.lm.safetensors_folder import tensors
from treadle.lm.tokenizer import ChatTokenizer

# What neither side can know from the other's files, and the epsilon, which GGUF keeps as float32.
IGNORED = (
    "_name_or_path",
    "_model_name_or_path",
    "transformers_version",
    "dtype",
    "architectures",
    "rms_norm_eps",
    "unk_token_id",
)
TEXTS = [
    "Return the value of the object.",
    "a  1",
    "  12 3",
    "x\n\n  42\n",
    "é ²½ ٣٤ 日本語 👩‍👩‍👧",
    "def f(x):\n    return  12  # <tag>",
    "don't you'll I'M\t\ttabs",
]


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.read() for tensor in tensors(folder)}


def test_float32_there_and_back_is_exact(tmp_path: Path, tiny_llama: Path) -> None:
    write_gguf(tiny_llama, tmp_path / "m.gguf", "f32")
    (tmp_path / "back").mkdir()
    convert_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = _arrays(tiny_llama), _arrays(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    ids = torch.tensor([[1, 7, 9, 30, 200]])
    logits = [
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")(ids).logits
        for folder in (tiny_llama, tmp_path / "back")
    ]
    assert torch.equal(*logits)
    ours, theirs = ChatTokenizer.load(tmp_path / "back"), ChatTokenizer.load(tiny_llama)
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    chat = [{"role": "user", "content": TEXTS[0]}]
    assert ours.encode_chat(chat) == theirs.encode_chat(chat)
    assert (ours.eos_ids, ours.context_length) == (theirs.eos_ids, theirs.context_length)


@pytest.mark.parametrize(("kind", "bound"), [("q8_0", 1 / 127), ("f16", 1 / 1024)])
def test_rounding_stays_within_the_format(tmp_path: Path, tiny_llama: Path, kind, bound) -> None:
    write_gguf(tiny_llama, tmp_path / "m.gguf", kind)
    (tmp_path / "back").mkdir()
    convert_gguf(tmp_path / "m.gguf", tmp_path / "back")
    before, after = _arrays(tiny_llama), _arrays(tmp_path / "back")
    for name, array in before.items():
        if array.ndim == 1:
            assert np.array_equal(array, after[name])
        else:
            assert not np.array_equal(array, after[name])
            assert np.abs(array - after[name]).max() <= bound * np.abs(array).max()


def test_q_and_k_are_interleaved_by_head(tmp_path: Path, tiny_llama: Path) -> None:
    write_gguf(tiny_llama, tmp_path / "m.gguf", "f32")
    stored = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    ours = _arrays(tiny_llama)["model.layers.0.self_attn.k_proj.weight"]  # 2 heads of 16
    theirs = stored["blk.0.attn_k.weight"].data.reshape(32, 64)
    for head in (0, 16):
        for i in range(8):
            assert np.array_equal(theirs[head + 2 * i], ours[head + i])
            assert np.array_equal(theirs[head + 2 * i + 1], ours[head + 8 + i])
    assert "output.weight" not in stored


def test_bfloat16_weights_are_widened_exactly(tmp_path: Path, tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "bf16")
    arrays = _arrays(tmp_path / "bf16")
    for name, parameter in model.named_parameters():
        assert np.array_equal(arrays[name], parameter.detach().float().numpy())


def test_the_real_models_weights_are_those_in_its_gguf(smollm2: Path) -> None:
    from treadle.lm.base_model import KNOWN, _in_package

    source, _, _ = _in_package(KNOWN[0])
    ours = {tensor.name: tensor for tensor in tensors(smollm2)}
    stored = {t.name: t for t in gguf.GGUFReader(source).tensors}
    assert len(ours) == len(stored) == 272
    for theirs, name in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
        ("output_norm.weight", "model.norm.weight"),
    ):
        expected = gguf.quants.dequantize(stored[theirs].data, stored[theirs].tensor_type)
        assert np.array_equal(ours[name].read(), expected)


def test_the_config_is_the_one_transformers_reads(smollm2: Path) -> None:
    from treadle.lm.base_model import KNOWN, _in_package

    source, _, _ = _in_package(KNOWN[0])
    theirs = AutoConfig.from_pretrained(source.parent, gguf_file=source.name).to_dict()
    ours = AutoConfig.from_pretrained(smollm2).to_dict()
    for key in IGNORED:
        theirs.pop(key, None), ours.pop(key, None)
    assert ours == theirs
    raw = json.loads((smollm2 / "config.json").read_text())
    assert raw["rope_theta"] == raw["rope_parameters"]["rope_theta"] == 100000.0  # for transformers 4 and 5
    assert np.float32(raw["rms_norm_eps"]) == np.float32(1e-5)


def test_tokens_equal_transformers_reading_of_the_same_gguf(smollm2: Path) -> None:
    from treadle.lm.base_model import KNOWN, _in_package

    source, _, _ = _in_package(KNOWN[0])
    theirs = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    ours = ChatTokenizer.load(smollm2)
    # transformers does not single out digits here, which shows after two spaces; llama.cpp and OpenVINO do as we do.
    for text in ["Hello, world! don't", "a 1 23", "x = [1, 2]\n\nreturn x", "日本語 é"]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert ours.encode("a  1") != theirs.encode("a  1", add_special_tokens=False)


def test_transformers_loads_the_same_gguf_equally(tmp_path: Path, tiny_llama: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers needs accelerate to read GGUF")
    write_gguf(tiny_llama, tmp_path / "m.gguf", "q8_0")
    (tmp_path / "back").mkdir()
    convert_gguf(tmp_path / "m.gguf", tmp_path / "back")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(name)), name


def test_openvino_reads_what_we_write(smollm2: Path, smollm2_release: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    openvino = pytest.importorskip("openvino")
    pipeline = genai.LLMPipeline(str(smollm2_release / "model" / "model.gguf"), "CPU")
    tokenizer = ChatTokenizer.load(smollm2)
    theirs = pipeline.get_tokenizer()
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False).input_ids.data[0].tolist() == tokenizer.encode(text)
    ids = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France? Answer in one word."}])
    inputs = genai.TokenizedInputs(openvino.Tensor(np.array([ids])), openvino.Tensor(np.ones((1, len(ids)), np.int64)))
    answer = pipeline.generate(inputs, max_new_tokens=12)
    assert "Paris" in tokenizer.decode(list(answer.tokens[0]))


def test_what_gguf_cannot_say_is_refused_and_leaves_nothing(tmp_path: Path, tiny_llama: Path, make_model) -> None:
    with pytest.raises(UserError, match="did you mean 'q8_0'"):
        write_gguf(tiny_llama, tmp_path / "out" / "m.gguf", "q8")  # type: ignore[arg-type]
    folder = make_model(tmp_path / "model")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="cannot be written to GGUF"):
        write_gguf(folder, tmp_path / "out" / "m.gguf")
    assert not (tmp_path / "out").exists()

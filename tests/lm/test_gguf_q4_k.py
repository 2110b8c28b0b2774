"""Q4_K by its readers: gguf's own, and an engine."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from treadle.lm import gguf_q4_k
from treadle.lm.gguf import write_gguf
from treadle.lm.tokenizer import ChatTokenizer

RANDOM = np.random.default_rng(0)
MATRICES = {
    "like weights": RANDOM.normal(size=(64, 1024)) * 0.02,
    "far out": RANDOM.standard_t(2, size=(64, 512)),
    "above zero": RANDOM.gamma(2, size=(32, 512)),
    "below zero": -np.abs(RANDOM.normal(size=(32, 256))),
}


def rounded(array: np.ndarray, kind: str) -> np.ndarray:
    """What gguf reads of an array that was quantized, by us where gguf cannot."""
    quant = getattr(gguf.GGMLQuantizationType, kind)
    data = gguf_q4_k.quantize(array) if kind == "Q4_K" else gguf.quants.quantize(array, quant)
    return gguf.quants.dequantize(data, quant)


@pytest.mark.parametrize("name", MATRICES)
def test_closer_than_the_plain_kinds(name: str) -> None:
    array = MATRICES[name].astype(np.float32)
    error = {kind: np.square(rounded(array, kind) - array).mean() for kind in ("Q4_K", "Q4_1", "Q4_0")}
    assert error["Q4_K"] < error["Q4_1"] < error["Q4_0"]
    assert error["Q4_K"] < 0.01 * array.var()


@pytest.mark.parametrize("value", [0.0, 0.5, -0.5])
def test_equal_weights_stay_equal(value: float) -> None:
    array = np.full((2, 256), value, dtype=np.float32)
    found = rounded(array, "Q4_K")
    assert len(np.unique(found)) == 1
    assert math.isclose(found[0, 0], value, rel_tol=1e-3)


def test_rows_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="576 columns"):
        gguf_q4_k.quantize(np.zeros((2, 576), dtype=np.float32))


@pytest.mark.slow
def test_an_engine_answers_by_it(smollm2: Path, tmp_path: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    openvino = pytest.importorskip("openvino")
    write_gguf(smollm2, tmp_path / "model.gguf", "q4_k")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "Q4_K"  # rows of 1,536
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"  # of 576
    tokenizer = ChatTokenizer.load(smollm2)
    ids = tokenizer.encode_chat([{"role": "user", "content": "What is the capital of France? Answer in one word."}])
    inputs = genai.TokenizedInputs(openvino.Tensor(np.array([ids])), openvino.Tensor(np.ones((1, len(ids)), np.int64)))
    answer = genai.LLMPipeline(str(tmp_path / "model.gguf"), "CPU").generate(inputs, max_new_tokens=12)
    assert "Paris" in tokenizer.decode(list(answer.tokens[0]))

"""Generators as OpenVINO IR of 8 and 4 bits: evened out without another answer, and served by the engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tiny_models import write_model
from treadle.core.errors import UserError
from treadle.lm.optimization import Material
from treadle.lm.smoothing import smooth

TALKS = [
    [{"role": "user", "content": f"What does function {number} do?"}, {"role": "assistant", "content": "It returns."}]
    for number in range(6)
]


def grown(folder: Path, family: str) -> Path:
    """A tiny model with a few channels far larger than the others, as trained ones have them."""
    import torch
    import transformers

    write_model(folder, family)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.model.layers:
            for made_by in (layer.input_layernorm, layer.post_attention_layernorm):
                made_by.weight[:3] *= 40
            layer.mlp.up_proj.weight[5] *= 40
    model.save_pretrained(folder)
    return folder


def outliers(folder: Path) -> dict[str, float]:
    """By input, how much larger its largest channel is than the one in the middle."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    seen: dict[str, float] = {}
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "gate_proj", "down_proj")):

            def look(_module: torch.nn.Module, given: tuple[torch.Tensor, ...], name: str = name) -> None:
                peaks = given[0].flatten(0, -2).abs().amax(0)
                seen[name] = float(peaks.max() / peaks.median())

            module.register_forward_pre_hook(look)
    with torch.no_grad():
        model(torch.arange(3, 60)[None])
    return seen


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_channels_are_evened_out_and_the_answers_stay(family: str, tmp_path: Path) -> None:
    import torch
    import transformers

    model, out = grown(tmp_path / "model", family), tmp_path / "out"
    progress: list[tuple[int, int, str]] = []
    smooth(Material(model, tmp_path, TALKS, progress=lambda *said: progress.append(said)), out)
    before, after = outliers(model), outliers(out)
    assert len(before) == 6
    assert all(after[name] < 0.5 * before[name] for name in before)
    ids = torch.arange(3, 80)[None]
    with torch.no_grad():
        said = [
            transformers.AutoModelForCausalLM.from_pretrained(folder)(ids).logits.log_softmax(-1)
            for folder in (model, out)
        ]
    assert float((said[0] - said[1]).abs().max()) < 1e-3
    assert progress[-1] == (6, 6, "conversations")
    assert (out / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_what_cannot_be_evened_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="activations of a gpt2 cannot be evened out"):
        smooth(Material(write_model(tmp_path / "gpt2", "gpt2"), tmp_path, TALKS), tmp_path / "out")
    # Gemma's norms multiply by one more than their weights, so dividing these is not enough.
    with pytest.raises(UserError, match="answers differently"):
        smooth(Material(write_model(tmp_path / "gemma", "gemma2"), tmp_path, TALKS), tmp_path / "out")
    with pytest.raises(UserError, match="no conversation"):
        smooth(Material(write_model(tmp_path / "llama"), tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_no_gguf_can_say_is_named_before_the_long_work(tmp_path: Path) -> None:
    from treadle.integrations.openvino_generator import OpenVinoInt8Rows

    with pytest.raises(UserError, match="qwen2"):
        OpenVinoInt8Rows().write(Material(write_model(tmp_path / "model", "qwen2"), tmp_path, TALKS), tmp_path / "out")
    assert not (tmp_path / "smooth").exists()


@pytest.mark.parametrize(("name", "within"), [("OpenVinoInt8Rows", 0.5), ("OpenVinoInt4", 4.0)])
def test_the_engine_serves_them(name: str, within: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nncf")
    pytest.importorskip("openvino_genai")
    from treadle.integrations import openvino_generator
    from treadle.lm.engine import GenerateRequest
    from treadle.lm.engines import BlockingEngine

    model, out = grown(tmp_path / "model", "llama"), tmp_path / "out"
    out.mkdir()
    (tmp_path / "scratch").mkdir()
    way = getattr(openvino_generator, name)()
    capfd.readouterr()
    way.write(Material(model, tmp_path / "scratch", TALKS), out)
    assert capfd.readouterr().out == ""
    graph = (out / "openvino_model.xml").read_text()
    # 32 divides 64 and 96, and nothing wider does.
    assert re.search(r'<DYNAMIC_QUANTIZATION_GROUP_SIZE value="32"', graph)
    pair = ([3, 4, 5, 6], list(range(7, 60)))
    with BlockingEngine("transformers", model, settings={"precision": "f32"}) as opened:
        expected = opened.score([pair])[0].logprobs
    with BlockingEngine(way.engine, out, settings=dict(way.settings)) as opened:
        found = opened.score([pair])[0].logprobs
        (answer,) = opened.generate_all([GenerateRequest("one", (3, 4, 5), 8)])
    assert answer
    off = sum(abs(a - b) for a, b in zip(found, expected, strict=True)) / len(found)
    assert 0 < off < within, off
    assert way.group({"hidden_size": 576, "num_attention_heads": 9, "intermediate_size": 1536}) == (
        192 if name == "OpenVinoInt8Rows" else 64
    )

"""Attention in blocks: as plain attention has it, there and back, in every family that attends so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from treadle.lm.attention_mask import visible
from treadle.lm.block_attention import _FAMILIES, NAME, attend, use_blocks

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "head_dim": 8,
}


def model_of(family: str, **more: Any) -> Any:
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(family, **SIZES, **more)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()


def segments(width: int) -> torch.Tensor:
    """Two packed rows, the second with places without a token at its end."""
    found = torch.zeros(2, width, dtype=torch.long)
    found[0, width // 3 :] = 1
    found[1, width // 2 :] = 1
    found[1, -3:] = -1
    return found


@pytest.mark.parametrize("width", [5, 128, 129, 300])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("masked", [True, False])
def test_it_is_plain_attention(width: int, groups: int, masked: bool) -> None:
    draw = torch.Generator().manual_seed(width)
    shapes = [(2, heads, width, 16) for heads in (6, groups, groups)]
    query, key, value = (torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes)
    mask = visible(segments(width), torch.float32, causal=True) if masked else None
    found = attend(query, key, value, mask, 0.25)
    repeated = [each.repeat_interleave(6 // groups, 1) for each in (key, value)]
    scores = query @ repeated[0].transpose(2, 3) * 0.25
    scores = scores + visible(torch.zeros(2, width), torch.float32, causal=True) if mask is None else scores + mask
    wanted = (scores.softmax(-1) @ repeated[1]).transpose(1, 2)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    back = torch.randn(wanted.shape, generator=draw)
    ours, theirs = (torch.autograd.grad(each, (query, key, value), back) for each in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [250, 300])
@pytest.mark.parametrize("family", sorted(_FAMILIES))
def test_a_model_learns_the_same(family: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family, **({"sliding_window": None} if family == "mistral" else {}))
    ids = torch.randint(3, 61, (2, width), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": visible(segments(width), torch.float32, causal=True)}

    def told() -> tuple[Any, dict[str, Any]]:
        model.zero_grad()
        logits = model(**inputs, use_cache=False).logits
        logits.float().log_softmax(-1)[..., 0].sum().backward()
        return logits.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}

    wanted, gradients = told()
    assert use_blocks(model, "cpu") is model
    assert model.config._attn_implementation == NAME
    calls: list[Any] = []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return attend(*given)

    monkeypatch.setattr("treadle.lm.block_attention.attend", counted)
    found, ours = told()
    assert len(calls) == (SIZES["num_hidden_layers"] if width <= 256 else 0)  # wide rows in 32 bits are torch's
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    for name, each in gradients.items():
        torch.testing.assert_close(ours[name], each, atol=2e-3, rtol=1e-3, msg=name)
    model.save_pretrained(tmp_path)
    assert NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))


def test_a_pack_neighbor_is_not_seen() -> None:
    model = use_blocks(model_of("llama"), "cpu")
    ids = torch.randint(3, 61, (1, 200), generator=torch.Generator().manual_seed(1))
    places = torch.zeros(1, 200, dtype=torch.long)
    places[:, 90:] = 1
    mask = visible(places, torch.float32, causal=True)
    others = ids.clone()
    others[:, :90] = torch.randint(3, 61, (1, 90), generator=torch.Generator().manual_seed(2))
    one, other = (model(input_ids=each, attention_mask=mask, use_cache=False).logits[:, 90:] for each in (ids, others))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("family", "more", "device"),
    [
        ("gemma2", {}, "cpu"),  # a soft cap
        ("gpt_neox", {}, "cpu"),
        ("llama", {"attention_dropout": 0.1}, "cpu"),
        ("mistral", {"sliding_window": 16}, "cpu"),
        ("llama", {}, "cuda"),
    ],
)
def test_others_attend_as_before(family: str, more: dict[str, Any], device: str) -> None:
    assert use_blocks(model_of(family, **more), device).config._attn_implementation == "eager"

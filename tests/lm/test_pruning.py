"""Weights and layers taken out of a model: exactly those, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiny_models import VOCABULARY, write_tokenizer
from treadle.core.errors import UserError
from treadle.lm.optimization import Material
from treadle.lm.pruning import drop_layers, prune_weights, recover


def write_layers(folder: Path, layers: int, family: str = "llama") -> Path:
    """A random model with so many layers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        family, **shape, intermediate_size=48, initializer_range=0.2, bos_token_id=1, eos_token_id=2
    )
    write_tokenizer(folder)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_the_smallest_weights_of_each_matrix_become_zero(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    zeroed = prune_weights(tiny_llama, tmp_path / "pruned", 0.3)
    before = load_file(tiny_llama / "model.safetensors")
    after = load_file(tmp_path / "pruned" / "model.safetensors")
    assert before.keys() == after.keys()
    counted = 0
    for name, old in before.items():
        new = after[name].float()
        gone = (new == 0) & (old != 0)
        if "proj" not in name:
            assert not gone.any(), name
            continue
        counted += int(gone.sum())
        assert int(gone.sum()) == int(0.3 * old.numel()), name
        assert old[gone].abs().max() <= old[~gone].abs().min()
        assert (new[~gone] == old.float()[~gone]).all()
    assert counted == zeroed


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_layers_that_stay_compute_as_before(tmp_path: Path, family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    whole = write_layers(tmp_path / "whole", 5, family)
    assert drop_layers(whole, tmp_path / "cut", 3 / 5) == [0, 2, 4]
    cut = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    expected = AutoModelForCausalLM.from_pretrained(whole).eval()
    stack = expected.model if family == "llama" else expected.transformer
    name = "layers" if family == "llama" else "h"
    setattr(stack, name, torch.nn.ModuleList([getattr(stack, name)[place] for place in (0, 2, 4)]))
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        one, other = cut(ids, use_cache=False).logits, expected(ids, use_cache=False).logits
    assert torch.allclose(one, other, atol=1e-6)
    assert cut.config.num_hidden_layers == 3


def test_too_few_layers_are_left_alone(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 layers are too few"):
        drop_layers(tiny_llama, tmp_path / "cut", 0.5)
    assert not (tmp_path / "cut").exists()


def test_a_cut_model_learns_again(tmp_path: Path) -> None:
    from treadle.lm.optimization import Material
    from treadle.lm.pruning import recover

    cut = tmp_path / "cut"
    drop_layers(write_layers(tmp_path / "whole", 4), cut, 1 / 2)
    told: list[int] = []
    talk = [{"role": "user", "content": "What returns?"}, {"role": "assistant", "content": "the value of the object"}]
    material = Material(cut, tmp_path, conversations=[talk] * 4, progress=lambda done, _all, _unit: told.append(done))
    recover(cut, tmp_path / "out", material)
    assert told[-1] >= 1
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != (cut / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="there is no dataset"):
        recover(cut, tmp_path / "none", Material(cut, tmp_path))


def test_a_cut_model_learns_from_what_is_longer_than_usual(tmp_path: Path) -> None:
    whole, cut = write_layers(tmp_path / "whole", 3), tmp_path / "cut"
    drop_layers(whole, cut, 2 / 3)
    long = " ".join(["the function returns the value of the object"] * 60)
    talk = [{"role": "user", "content": "system user assistant"}, {"role": "assistant", "content": long}]
    shown: list[Any] = []

    def seen(*given: Any) -> None:
        shown.append(given)

    tool = {"type": "function", "function": {"name": "value", "parameters": {"type": "object", "properties": {}}}}
    material = Material(
        whole, tmp_path, conversations=[talk] * 3, tools=[[tool], [], []], system_prompt="object", progress=seen
    )
    (tmp_path / "out").mkdir()
    recover(cut, tmp_path / "out", material)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert shown

"""A base model whose weights are not all there is refused before anything is learned of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from safetensors.torch import load_file, save_file

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.gguf import write_gguf


def damaged(folder: Path, base: Path, *, without: tuple[str, ...] = (), **config: object) -> Path:
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not any(each in name for each in without)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


@pytest.mark.parametrize(
    ("family", "kind", "without"),
    [
        ("llama", "AutoModelForCausalLM", "model.norm.weight"),
        ("llama", "AutoModelForCausalLM", "layers.1.mlp"),
        ("gpt2", "AutoModelForCausalLM", "h.1.attn"),
        ("t5", "AutoModelForSeq2SeqLM", "decoder.block.1.layer.0"),
        ("bert", "AutoModel", "encoder.layer.1.attention"),
        ("bert", "AutoModelForSequenceClassification", "encoder.layer.1.attention"),
        ("bert", "AutoModelForTokenClassification", "embeddings.LayerNorm"),
        ("bert", "AutoModelForMaskedLM", "encoder.layer.0.output"),
    ],
)
def test_missing_tensors_are_named(
    tmp_path: Path, begun: dict[str, Path], family: str, kind: str, without: str
) -> None:
    base = damaged(tmp_path / "base", begun[family], without=(without,))
    with pytest.raises(UserError, match=rf"its weights lack [a-z0-9_.]*{without}.* its config\.json says there are"):
        torch_runtime.load(base, getattr(transformers, kind))


@pytest.mark.parametrize(("family", "count"), [("llama", "num_hidden_layers"), ("bert", "num_hidden_layers")])
def test_layers_that_only_the_config_has(tmp_path: Path, begun: dict[str, Path], family: str, count: str) -> None:
    base = damaged(tmp_path / "base", begun[family], **{count: 5})
    kind = transformers.AutoModelForCausalLM if family == "llama" else transformers.AutoModel
    with pytest.raises(UserError, match=r"lack .*layers?\..* and \d+ others, .*correct its number of layers"):
        torch_runtime.load(base, kind)


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM"])
def test_a_head_and_a_pooler_may_be_new(tmp_path: Path, begun: dict[str, Path], kind: str) -> None:
    base = damaged(tmp_path / "base", begun["bert"], without=("pooler",))
    model = torch_runtime.load(base, getattr(transformers, f"AutoModelFor{kind}"))
    assert torch_runtime.new_parameters(model)
    torch_runtime.load(base, transformers.AutoModel)


@pytest.mark.parametrize(
    ("config", "kind", "lost"),
    [
        (transformers.PegasusConfig, "AutoModelForSeq2SeqLM", "embed_positions"),
        (transformers.MarianConfig, "AutoModel", "embed_positions"),
        (transformers.RoFormerConfig, "AutoModelForSequenceClassification", "embed_positions"),
        (transformers.DistilBertConfig, "AutoModelForSequenceClassification", "position_embeddings"),
    ],
)
def test_tables_that_are_computed_may_be_missing(tmp_path: Path, config: type, kind: str, lost: str) -> None:
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 99, "pad_token_id": 0}
    small |= {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small |= {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "sinusoidal_pos_embds": True}
    saved = {"AutoModelForSeq2SeqLM": kind, "AutoModel": "AutoModelForSeq2SeqLM"}.get(kind, "AutoModel")
    made = getattr(transformers, saved).from_config(config(**small, max_position_embeddings=64))
    made.save_pretrained(tmp_path / "made")
    base = damaged(tmp_path / "base", tmp_path / "made", without=(lost,))
    torch_runtime.load(base, getattr(transformers, kind))


def test_a_t5_reads_with_a_new_head(tmp_path: Path, begun: dict[str, Path]) -> None:
    model = torch_runtime.load(begun["t5"], transformers.AutoModelForQuestionAnswering)
    assert torch_runtime.new_parameters(model) == {"qa_outputs.weight", "qa_outputs.bias"}
    base = damaged(tmp_path / "base", begun["t5"], without=("decoder.block.1",))
    with pytest.raises(UserError, match="its weights lack decoder"):
        torch_runtime.load(base, transformers.AutoModelForQuestionAnswering)


def test_a_gguf_is_not_written_of_a_part(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    base = damaged(tmp_path / "base", make_model(tmp_path / "whole"), without=("layers.1.", "model.norm"))
    with pytest.raises(UserError, match=r"its weights lack model\.layers\.1\.input_layernorm\.weight \(10 tensors"):
        write_gguf(base, tmp_path / "out.gguf", "f32")
    assert not list(tmp_path.glob("*gguf*"))


def test_other_shapes_are_told_in_words(tmp_path: Path, begun: dict[str, Path]) -> None:
    base = damaged(tmp_path / "base", begun["bert"], hidden_size=64)
    with pytest.raises(UserError, match=r"its weights are of other shapes than its config\.json says"):
        torch_runtime.load(base, transformers.AutoModel)

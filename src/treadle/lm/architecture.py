"""The Llama architecture as its two homes write it: Hugging Face's names and order, and GGUF's.

Both directions live here so that they cannot drift apart. GGUF interleaves the rows of q and k for its rotary
embedding: reshaped to (heads, 2, head_dim / 2, in), axes 1 and 2 swapped, flattened
(ggml-org/llama.cpp, convert_hf_to_gguf.py, ``LlamaModel.permute``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

GGUF_NAME = "llama"
_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HF_LAYER = {theirs: ours for ours, theirs in _LAYER.items()}
_HF_TOP = {theirs: ours for ours, theirs in _TOP.items()}


def hf_name(gguf_name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor, or ``None`` where the architecture has no such tensor."""
    if gguf_name in _TOP:
        return _TOP[gguf_name]
    parts = gguf_name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in _LAYER:
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.{parts[3]}"
    return None


def gguf_name(hf_tensor: str) -> str | None:
    """The GGUF name of a Hugging Face tensor, or ``None`` where the architecture has no such tensor."""
    if hf_tensor in _HF_TOP:
        return _HF_TOP[hf_tensor]
    parts = hf_tensor.split(".")
    if hf_tensor.startswith("model.layers.") and len(parts) >= 5 and ".".join(parts[3:-1]) in _HF_LAYER:
        return f"blk.{parts[2]}.{_HF_LAYER['.'.join(parts[3:-1])]}.{parts[-1]}"
    return None


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight such a model has, by its Hugging Face name."""
    hidden, inner, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    found = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for index in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    return found


def heads_to_permute(hf_tensor: str, config: Mapping[str, Any]) -> int:
    """How many heads the rows of this tensor are permuted by between the two homes; 0 for none."""
    if ".self_attn.q_proj." in hf_tensor:
        return int(config["num_attention_heads"])
    if ".self_attn.k_proj." in hf_tensor:
        return int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return 0


def to_gguf_order(array: Any, heads: int) -> Any:
    """Rows of q or k from Hugging Face's order to GGUF's."""
    rows = array.shape[0]
    return array.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)


def to_hf_order(array: Any, heads: int) -> Any:
    """Rows of q or k from GGUF's order back to Hugging Face's."""
    rows = array.shape[0]
    return array.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)


def config_from_gguf(metadata: Mapping[str, Any], *, tied: bool, where: Path) -> dict[str, Any]:
    """``config.json`` for a Llama-architecture GGUF; ``UserError`` names what is missing or not supported."""
    if (name := metadata.get("general.architecture")) != GGUF_NAME:
        raise UserError(
            f"{where}: architecture {name!r}; a GGUF base model must be {GGUF_NAME!r}, others as HF folders"
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if metadata.get("llama.expert_count") or scaling != "none":
        what = f"rope scaling {scaling!r}" if scaling != "none" else "a mixture of experts"
        raise UserError(f"{where}: {what} is not supported from GGUF; use the model's Hugging Face folder")
    try:
        heads = int(metadata["llama.attention.head_count"])
        hidden = int(metadata["llama.embedding_length"])
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
            "dtype": "float32",
            "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
            "head_dim": int(metadata.get("llama.attention.key_length") or hidden // heads),
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "intermediate_size": int(metadata["llama.feed_forward_length"]),
            "max_position_embeddings": int(metadata["llama.context_length"]),
            "mlp_bias": False,
            "num_attention_heads": heads,
            "num_hidden_layers": int(metadata["llama.block_count"]),
            "num_key_value_heads": int(metadata.get("llama.attention.head_count_kv") or heads),
            "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
            "rms_norm_eps": _shortest_float32(metadata["llama.attention.layer_norm_rms_epsilon"]),
            "tie_word_embeddings": tied,
            "use_cache": True,
            "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        }
    except KeyError as error:
        raise UserError(f"{where}: the GGUF has no metadata {error}; copy it again from its source") from None
    theta = _shortest_float32(metadata.get("llama.rope.freq_base", 10000.0))
    # Both spellings: transformers 5 reads rope_parameters, and 4 would silently fall back to 10000 without rope_theta.
    return config | {"rope_theta": theta, "rope_parameters": {"rope_theta": theta, "rope_type": "default"}}


def config_to_gguf(config: Mapping[str, Any], *, where: Path) -> dict[str, Any]:
    """GGUF metadata for a Llama-architecture ``config.json``; ``UserError`` for what GGUF's llama cannot say."""
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or scaling.get("rope_type") or scaling.get("type") or "default"
    family = config.get("model_type")
    if family != "llama" or kind != "default" or config.get("attention_bias") or config.get("mlp_bias"):
        raise UserError(
            f"{where}: {family} with rope {kind!r} cannot be written as a Llama GGUF;"
            " set deploy.quantize: null, and the model is served as it is"
        )
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    return {
        "llama.block_count": int(config["num_hidden_layers"]),
        "llama.context_length": int(config["max_position_embeddings"]),
        "llama.embedding_length": hidden,
        "llama.feed_forward_length": int(config["intermediate_size"]),
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "llama.attention.key_length": head_dim,
        "llama.attention.value_length": head_dim,
        "llama.rope.freq_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        "llama.rope.dimension_count": head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.vocab_size": int(config["vocab_size"]),
    }


def _shortest_float32(value: float) -> float:
    """The shortest decimal that is the same float32: GGUF's 9.99999974e-06 is 1e-05."""
    import struct

    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value

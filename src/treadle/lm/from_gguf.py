"""A GGUF file as a Hugging Face model folder: safetensors, config, tokenizer. No torch, no transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import architecture
from treadle.lm.gguf_file import GgufFile

CONVERTER_VERSION = 1
_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type, ggml docs/gguf.md

# How each pre-tokenizer that llama.cpp names splits text (llama.cpp src/llama-vocab.cpp), as tokenizers writes it.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SINGLE_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
}
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _BYTE_LEVEL,
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "refact": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "qwen2": {},
    "llama-bpe": {},
}


def _split_by(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL | {"use_regex": False}]}


_PRE_TOKENIZERS["qwen2"] = _split_by(_QWEN2)
_PRE_TOKENIZERS["llama-bpe"] = _split_by(_QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))


def convert_gguf(path: Path, folder: Path) -> None:
    """Write ``path`` into the existing, empty ``folder`` as float32; takes about 5 s and 1.2 GB for 135M parameters."""
    with GgufFile(path) as file:
        tied = "output.weight" not in file.tensors
        config = architecture.config_from_gguf(file.metadata, tied=tied, where=path)
        tokenizer, settings = tokenizer_from_gguf(file.metadata, where=path)
        _write_json(folder / "config.json", config)
        _write_json(folder / "tokenizer.json", tokenizer)
        _write_json(folder / "tokenizer_config.json", settings)
        ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        _write_json(folder / "generation_config.json", {k: v for k, v in ids.items() if v is not None})
        _write_weights(file, config, folder / "model.safetensors")


def tokenizer_from_gguf(metadata: dict[str, Any], *, where: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``tokenizer.json`` and ``tokenizer_config.json`` of a byte-level BPE vocabulary.

    transformers' own reading of ``smollm`` does not single out digits and so differs after runs of spaces; this one
    follows llama.cpp and the original tokenizer.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        known = ", ".join(sorted(_PRE_TOKENIZERS))
        raise UserError(
            f"{where}: tokenizer {kind!r} with pre-tokenizer {pre!r}; from GGUF only 'gpt2' with one of {known}"
            " is supported: use the model's Hugging Face folder"
        )
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    types: list[int] = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    added = [
        {"id": i, "content": token, "special": kind == _CONTROL}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    named = {
        f"{name}_token": tokens[metadata[key]]
        for name, key in (
            ("bos", "tokenizer.ggml.bos_token_id"),
            ("eos", "tokenizer.ggml.eos_token_id"),
            ("unk", "tokenizer.ggml.unknown_token_id"),
            ("pad", "tokenizer.ggml.padding_token_id"),
        )
        if key in metadata
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": pre == "llama-bpe",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [merge.split(" ", 1) for merge in metadata.get("tokenizer.ggml.merges", [])],
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre],
        "post_processor": _begin_with(metadata, tokens),
        "decoder": _BYTE_LEVEL | {"add_prefix_space": True},
        "model": model,
    }
    settings = named | {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(metadata.get("llama.context_length", 0)) or None,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if template := metadata.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return tokenizer, {k: v for k, v in settings.items() if v is not None}


def _begin_with(metadata: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    """The post-processor that puts the beginning token first, for a vocabulary that asks for it."""
    if not metadata.get("tokenizer.ggml.add_bos_token", False):
        return None
    index = metadata["tokenizer.ggml.bos_token_id"]
    first = {"SpecialToken": {"id": tokens[index], "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    special = {tokens[index]: {"id": tokens[index], "ids": [index], "tokens": [tokens[index]]}}
    return {
        "type": "TemplateProcessing",
        "single": [first, a],
        "pair": [first, a, first, b],
        "special_tokens": special,
    }


def _write_weights(file: GgufFile, config: dict[str, Any], out: Path) -> None:
    try:
        from safetensors.numpy import save_file
    except ModuleNotFoundError:
        raise MissingExtra("safetensors", extra="train") from None
    arrays = {}
    for gguf_tensor in file.tensors:
        name = architecture.hf_name(gguf_tensor)
        if name is None:
            raise UserError(
                f"{file.path}: tensor {gguf_tensor!r} is not supported; use the model's Hugging Face folder"
            )
        array = file.array(gguf_tensor)
        if heads := architecture.heads_to_permute(name, config):
            array = architecture.to_hf_order(array, heads).copy()
        arrays[name] = array
    if config["vocab_size"] != arrays["model.embed_tokens.weight"].shape[0]:
        raise UserError(
            f"{file.path}: the embedding and the vocabulary differ in size; copy it again from its source"
        )
    save_file(arrays, out, metadata={"format": "pt"})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=False) + "\n", encoding="utf-8")

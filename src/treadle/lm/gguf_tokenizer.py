"""A byte-level BPE tokenizer as its two homes write it: ``tokenizer.json``, and a GGUF's metadata.

GGUF names how text is split before merging (``tokenizer.ggml.pre``) where ``tokenizer.json`` spells it out; the table
below is the dictionary between the two. Both directions live here so that they cannot drift apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # tokenizer.ggml.token_type, ggml docs/gguf.md

_NAMED = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}

# How each pre-tokenizer that llama.cpp names splits text (llama.cpp src/llama-vocab.cpp), as tokenizers writes it.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SINGLE_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
}
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
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
    named = {f"{name}_token": tokens[metadata[key]] for name, key in _NAMED.items() if key in metadata}
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


def tokenizer_to_gguf(folder: Path) -> dict[str, Any]:
    """The ``tokenizer.*`` metadata of a GGUF for a model folder; ``UserError`` for a kind GGUF cannot name."""
    tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    settings_path, template_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    settings: dict[str, Any] = json.loads(settings_path.read_bytes()) if settings_path.is_file() else {}
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    model = tokenizer["model"]
    pre = next((n for n, known in _PRE_TOKENIZERS.items() if _same(known, tokenizer.get("pre_tokenizer"))), None)
    if model.get("type") != "BPE" or pre is None:
        raise UserError(
            f"{folder}: this tokenizer ({model.get('type')}) cannot be written to GGUF; only byte-level BPE split as"
            f" one of {', '.join(sorted(_PRE_TOKENIZERS))} can; set deploy.quantize: null, to serve it as it is"
        )
    added = {token["id"]: token for token in tokenizer.get("added_tokens", [])}
    by_id = {i: token for token, i in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    size = max(config.get("vocab_size") or 0, max(by_id) + 1)
    kinds = [_kind(i, by_id, added) for i in range(size)]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [by_id.get(i, f"[PAD{i}]") for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in model["merges"]],
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": (tokenizer.get("post_processor") or {}).get("type") == "TemplateProcessing",
    }
    ids = {token: i for i, token in by_id.items()}
    for name, key in _NAMED.items():
        token = settings.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            metadata[key] = ids[token]
    template = template_path.read_text(encoding="utf-8") if template_path.is_file() else settings.get("chat_template")
    if isinstance(template, str):
        metadata["tokenizer.chat_template"] = template
    return metadata


def _kind(index: int, by_id: dict[int, str], added: dict[int, dict[str, Any]]) -> int:
    if index not in by_id:
        return _UNUSED
    if index not in added:
        return _NORMAL
    return _CONTROL if added[index].get("special") else _USER_DEFINED


def _same(known: dict[str, Any], other: Any) -> bool:
    """Equal but for ``trim_offsets``, which moves offsets and never ids."""
    return bool(_without_offsets(known) == _without_offsets(other))


def _without_offsets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_offsets(v) for k, v in value.items() if k not in ("trim_offsets", "invert")}
    if isinstance(value, list):
        return [_without_offsets(v) for v in value]
    return value

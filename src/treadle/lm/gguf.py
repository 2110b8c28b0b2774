"""A Hugging Face model folder as one GGUF file, which llama.cpp and OpenVINO open. No torch, no transformers.

Q8_0 rounds blocks of 32 weights to 8 bits with a 16-bit scale: nearly lossless at a quarter of float32's size. Q4_K is
the best of the 4-bit ones; matrices whose rows are no multiple of its 256 weights are stored as Q8_0 beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

from treadle.core.errors import MissingExtra, UserError, nearest
from treadle.lm import architecture, gguf_q4_k
from treadle.lm.gguf_description import described
from treadle.lm.safetensors_folder import check_folder, tensors

Kind = Literal["q8_0", "q4_k", "q4_1", "q4_0", "f16", "f32"]
_BLOCK = 32  # weights that share a scale in Q8_0, Q4_1 and Q4_0
_FILE_TYPES = {"f32": "ALL_F32", "q4_k": "MOSTLY_Q4_K_S"}


def write_gguf(model_folder: Path, out: Path, kind: Kind = "q8_0") -> None:
    """Write ``model_folder`` to the file ``out``; norms stay float32.

    Raises ``UserError`` for an architecture or a tokenizer that this writer does not know, and damaged weights.
    """
    try:
        import gguf
    except ModuleNotFoundError:
        raise MissingExtra("gguf", extra="train") from None
    if kind not in get_args(Kind):
        raise UserError(f"deploy.quantize.format: {kind!r};{nearest(kind, get_args(Kind))}")
    check_folder(model_folder)
    config, metadata = described(model_folder)
    with _written_whole(out) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture.GGUF_NAME)
        writer.add_name(model_folder.name)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(getattr(gguf.LlamaFileType, _FILE_TYPES.get(kind, f"MOSTLY_{kind.upper()}")))
        for key, value in metadata.items():
            _add(writer, key, value)
        for name, array in _arrays(model_folder, config):
            stored = _stored_as(array, kind)
            quant = getattr(gguf.GGMLQuantizationType, stored.upper())
            data = gguf_q4_k.quantize(array) if stored == "q4_k" else gguf.quants.quantize(array, quant)
            writer.add_tensor(name, data, raw_dtype=quant)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _arrays(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    tied, lacking = bool(config.get("tie_word_embeddings")), _expected(config)
    for tensor in tensors(folder):
        lacking.discard(tensor.name)
        name = architecture.gguf_name(tensor.name)
        if name is None:
            raise UserError(
                f"{tensor.path}: tensor {tensor.name!r} has no place in a Llama GGUF; set deploy.quantize:"
                " null, to serve it as it is"
            )
        if tied and name == "output.weight":
            continue
        array = tensor.read()
        if heads := architecture.heads_to_permute(tensor.name, config):
            array = architecture.to_gguf_order(array, heads).copy()
        yield name, array
    if lacking:
        raise UserError(
            f"{folder}: its weights lack {min(lacking)} ({len(lacking)} tensors in all), which its config.json says"
            " there are; copy the folder again"
        )


def _expected(config: dict[str, Any]) -> set[str]:
    """The tensors without which no model is one."""
    heads = config["num_attention_heads"]
    usual = {"head_dim": config["hidden_size"] // heads, "num_key_value_heads": heads, "tie_word_embeddings": False}
    given = {name: value for name, value in config.items() if value is not None}
    return set(architecture.shapes({**usual, **given}))


def _stored_as(array: Any, kind: Kind) -> str:
    if array.ndim < 2:
        return "f32"
    if kind.startswith("q") and array.shape[-1] % _BLOCK:
        return "f16"
    return "q8_0" if kind == "q4_k" and array.shape[-1] % gguf_q4_k.BLOCK else kind


def _add(writer: Any, key: str, value: Any) -> None:
    """Type by value, as llama.cpp's own converter writes them: counts are uint32, token types int32."""
    import gguf

    kinds = gguf.GGUFValueType
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_key_value(key, value, kinds.BOOL)
    elif isinstance(value, int):
        writer.add_key_value(key, value, kinds.UINT32)
    elif isinstance(value, float):
        writer.add_key_value(key, value, kinds.FLOAT32)
    else:
        writer.add_key_value(key, cast("str", value), kinds.STRING)


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error}); free some space or choose another folder") from None
    finally:
        temporary.unlink(missing_ok=True)

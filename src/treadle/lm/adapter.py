"""Low-rank adapters (LoRA) beside the model they belong to, in PEFT's two files: written, checked, put into a model.

A release that keeps its adapter apart has two folders, ``model`` with the base as it is and ``adapter``, and says in
``release.json`` which bytes both are. Whoever opens one sees to it that they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.artifacts import DOCUMENT_IDS, Entry, digest_of
from treadle.core.digest import blake3_bytes, blake3_file
from treadle.core.errors import UserError
from treadle.lm.model import ABOUT
from treadle.lm.model_folder import read_object
from treadle.lm.safetensors_folder import read_header, tensors

if TYPE_CHECKING:
    import torch

FOLDER = "adapter"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_RELEASE = "release.json"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_MOST_BYTES = {CONFIG: 1 << 20, WEIGHTS: 16 << 30}
# What PEFT knows beyond plain LoRA, and what it says where an adapter is plain.
_PLAIN: dict[str, Any] = {
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layer_replication": None,
}
Pairs = Mapping[str, tuple["torch.Tensor", "torch.Tensor"]]
"""By layer, ``A`` of (rank, inputs) and ``B`` of (outputs, rank)."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a release says of its adapter: the digest of its files, that of its base's, and its rank."""

    folder: Path
    digest: str
    base: str
    rank: int

    def read(self) -> dict[str, bytes]:
        """Its files by name; ``UserError`` unless they are, byte for byte, those that the release names."""
        found = _files(self.folder)
        digest = digest_of(Entry(name, len(data), blake3_bytes(data)) for name, data in found.items())
        if digest != self.digest:
            raise UserError(
                f"{self.folder}: not the adapter of its release ({digest[:11]}, where that names {self.digest[:11]}):"
                " cut short or changed; get the release again"
            )
        return found

    def check(self, base: Path) -> None:
        """``UserError`` unless its files are whole, those of the release, and for a model like that in ``base``."""
        _check_whole(self.folder)
        rank, _ = _config(self.folder / CONFIG, self.read()[CONFIG])
        if rank != self.rank:
            raise UserError(f"{self.folder}: its rank is {rank}, and the release says {self.rank}; get it again")
        shapes = {each.name: each.shape for each in tensors(base)}
        for each in read_header(self.folder / WEIGHTS):
            layer, down = _layer(each.name, self.folder)
            held = shapes.get(f"{layer}.weight")
            if held is None or len(held) != 2:
                raise UserError(f"{self.folder}: an adapter for another base; {base} has no matrix {layer}.weight")
            expected = (rank, held[1]) if down else (held[0], rank)
            if each.shape != expected:
                raise UserError(
                    f"{self.folder}: an adapter for another base; {each.name} is {_size(each.shape)}, and"
                    f" {layer} in {base} wants {_size(expected)}"
                )

    def check_base(self, base: Path) -> None:
        """``UserError`` unless the model in ``base`` is, byte for byte, the one that the adapter was made for."""
        found = base_digest(base)
        if found != self.base:
            raise UserError(
                f"{self.folder}: an adapter for another base ({self.base[:11]}); {base} holds {found[:11]}; get the"
                " release again"
            )


def adapter_of(folder: Path) -> Adapter | None:
    """The adapter of the release that ``folder`` is, or whose model it is; None where there is none."""
    release = folder.parent if folder.name == "model" else folder
    path = release / _RELEASE
    if not path.is_file():
        return None
    told = read_object(path, _MOST_BYTES[CONFIG]).get("optimization")
    told = told.get(FOLDER) if isinstance(told, dict) else None
    if told is None:
        return None
    try:
        return Adapter(release / FOLDER, str(told["digest"]), str(told["base"]), int(told["rank"]))
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: says of its adapter neither digest nor base nor rank; get the release again"
        ) from None


def described(folder: Path, base: Path) -> dict[str, Any]:
    """What a release says of the adapter in ``folder``, for the model in ``base``."""
    files = _files(folder)
    entries = [Entry(name, len(data), blake3_bytes(data)) for name, data in files.items()]
    rank, _ = _config(folder / CONFIG, files[CONFIG])
    return {"digest": digest_of(entries), "base": base_digest(base), "rank": rank}


def base_digest(folder: Path) -> str:
    """The digest of a base's files."""
    return digest_of(
        Entry(path.relative_to(folder).as_posix(), path.stat().st_size, blake3_file(path))
        for path in base_files(folder)
    )


def base_files(folder: Path) -> list[Path]:
    """The files of a base in a release's ``model``: all but those that tell of the version it is served for."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (ABOUT, DOCUMENT_IDS)]


def write_adapter(folder: Path, pairs: Pairs, *, rank: int, alpha: float) -> None:
    """Write ``B @ A * alpha / rank`` of each layer as PEFT does, in float32."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    held: dict[str, torch.Tensor] = {}
    for layer, (down, up) in pairs.items():
        for part, weights in ((_DOWN, down), (_UP, up)):
            held[f"{_PREFIX}{layer}{part}"] = weights.detach().to("cpu", torch.float32).contiguous()
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        **_PLAIN,
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": sorted({layer.rpartition(".")[2] for layer in pairs}),
        "base_model_name_or_path": None,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))


def read_adapter(folder: Path) -> tuple[Pairs, int, float]:
    """The matrices of an adapter's folder, its rank and alpha; ``UserError`` where it is none, or not plain LoRA."""
    _check_whole(folder)
    return _parsed(folder, _files(folder))


def layers_of(folder: Path) -> set[str]:
    """The layers that an adapter's folder has matrices for."""
    return {_layer(each.name, folder)[0] for each in read_header(folder / WEIGHTS)}


def merge(model: Any, adapter: Adapter) -> None:
    """Add what an adapter learned to the weights of a model in float32; ``UserError`` where they do not fit."""
    import torch

    pairs, rank, alpha = _parsed(adapter.folder, adapter.read())
    layers = dict(model.named_modules())
    body = f"{getattr(model, 'base_model_prefix', '')}."  # a model without its head lacks it
    with torch.no_grad():
        for name, (down, up) in pairs.items():
            layer = layers.get(name) or layers.get(name.removeprefix(body))
            weight = getattr(layer, "weight", None)
            if weight is None or tuple(weight.shape) != (up.shape[0], down.shape[1]):
                raise UserError(f"{adapter.folder}: an adapter for another base; the model has no such layer {name}")
            weight += ((up @ down) * (alpha / rank)).to(weight)


def _parsed(folder: Path, files: Mapping[str, bytes]) -> tuple[Pairs, int, float]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    rank, alpha = _config(folder / CONFIG, files[CONFIG])
    try:
        held = load(files[WEIGHTS])
    except SafetensorError:
        raise UserError(
            f"{folder / WEIGHTS}: truncated or damaged safetensors; copy it again from its source"
        ) from None
    halves: dict[str, dict[bool, torch.Tensor]] = {}
    for name, weights in held.items():
        layer, down = _layer(name, folder)
        halves.setdefault(layer, {})[down] = weights.float()
    if not halves or any(len(half) != 2 for half in halves.values()):
        raise UserError(f"{folder}: expected two matrices for each layer; copy the adapter again from its source")
    return {layer: (half[True], half[False]) for layer, half in sorted(halves.items())}, rank, alpha


def _layer(name: str, folder: Path) -> tuple[str, bool]:
    """The layer that a matrix is of, and whether it is ``A``."""
    for part in (_DOWN, _UP):
        if name.startswith(_PREFIX) and name.endswith(part):
            return name.removeprefix(_PREFIX).removesuffix(part), part == _DOWN
    raise UserError(f"{folder}: holds {name!r}; expected A and B of linear layers alone, as plain LoRA has them")


def _config(path: Path, data: bytes) -> tuple[int, float]:
    """Rank and alpha."""
    try:
        told = json.loads(data)
        kind, rank, alpha = told["peft_type"], told["r"], float(told["lora_alpha"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path}: expected PEFT's configuration with peft_type, r and lora_alpha") from None
    if kind != "LORA" or not isinstance(rank, int) or not 1 <= rank <= 1 << 16:
        raise UserError(f"{path}: {kind} of rank {rank!r}; expected LORA of a rank from 1")
    for name, plain in _PLAIN.items():
        if told.get(name) and told[name] != plain:
            raise UserError(f"{path}: {name} is {told[name]!r}; only plain LoRA is served, so merge this one instead")
    return rank, alpha


def _files(folder: Path) -> dict[str, bytes]:
    found = {}
    for name, most in _MOST_BYTES.items():
        path = folder / name
        try:
            if path.stat().st_size > most:
                raise UserError(f"{path}: more than {most} bytes; not an adapter's")
            found[name] = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; expected an adapter's file, get it again") from None
    return found


def _check_whole(folder: Path) -> None:
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an adapter's weights, get it again")
    read_header(path)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

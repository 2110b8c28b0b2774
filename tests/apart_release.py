"""A release with an adapter beside its base, made without training: random matrices for every linear layer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from treadle.lm.adapter import CONFIG, described, write_adapter
from treadle.lm.safetensors_folder import tensors
from treadle.record.release import ReleaseSpec


def write_apart(base: Path, release: Path, *, seed: int = 1, rank: int = 4, alpha: float = 8.0) -> Path:
    """``release.json``, ``model`` and ``adapter``; another seed is another adapter to the same base."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    pairs = {}
    for each in tensors(base):
        if each.name.endswith("_proj.weight"):
            outputs, inputs = each.shape
            down = torch.randn(rank, inputs, generator=draw) / inputs**0.5
            pairs[each.name.removesuffix(".weight")] = (down, torch.randn(outputs, rank, generator=draw) * 0.2)
    shutil.copytree(base, release / "model")
    write_adapter(release / "adapter", pairs, rank=rank, alpha=alpha)
    write_spec(release)
    return release


def write_spec(release: Path, **changed: object) -> None:
    """``release.json`` as the folders are now; ``changed`` is said otherwise of the adapter."""
    told = described(release / "adapter", release / "model") | changed
    spec = ReleaseSpec("tiny", "chat", "b3:m", "b3:d", {}, "transformers", optimization={"adapter": told})
    (release / "release.json").write_text(json.dumps(spec.to_json()))


def set_alpha(release: Path, alpha: float) -> None:
    """What the adapter's configuration says."""
    path = release / "adapter" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": alpha}))

"""Which places of a packed row see each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.lm import torch_runtime
from treadle.lm.own_model import make_known
from treadle.lm.packing import PADDING

if TYPE_CHECKING:
    import torch

_ATTENDING = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


def masks(model: Any, segments: torch.Tensor, *, causal: bool) -> Any:
    """What a model is given as its attention mask, `visible`; where some of its layers look back only so far, one mask
    for each kind of layer, as transformers takes them. One that `crosses`, whose rows hold one example each, is told
    which places hold a token."""
    config = model.config
    if causal and crosses(config):
        return (segments != PADDING).long()
    full = visible(segments, model.dtype, causal=causal)
    config = config.get_text_config()  # of a model that sees images too
    window = getattr(config, "sliding_window", None)
    if not causal or not window or window >= segments.shape[1]:
        return full
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if "sliding_attention" not in kinds:
        return full
    near = visible(segments, model.dtype, causal=True, window=window)
    return near if len(kinds) == 1 else dict.fromkeys(kinds, full) | {"sliding_attention": near}


def visible(segments: torch.Tensor, dtype: torch.dtype, *, causal: bool, window: int | None = None) -> torch.Tensor:
    """Additive mask of shape (rows, 1, width, width): a place sees its own segment; if ``causal``, up to itself, and of
    that the last ``window`` places where it is given.

    A place without a token sees others without one, or its softmax would be over nothing.
    """
    import torch

    same = segments.unsqueeze(2) == segments.unsqueeze(1)
    if causal:
        width = segments.shape[1]
        seen = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
        same &= seen if window is None else seen.triu(1 - window)
    mask = torch.zeros(same.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(~same, torch.finfo(dtype).min).unsqueeze(1)


def crosses(config: Any) -> bool:
    """Whether layers of such a model carry what they read from place to place, as recurrences and convolutions do: no
    mask keeps that from the next example of a row."""
    import transformers

    if any(kind not in _ATTENDING for kind in getattr(config.get_text_config(), "layer_types", None) or ()):
        return True
    found = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return bool(getattr(found, "_is_stateful", False))


def crosses_rows(folder: Path) -> bool:
    """`crosses`, of the model in a folder; False for what is none, which is said where it is loaded."""
    _, transformers = torch_runtime.libraries()
    make_known(folder)
    try:
        return crosses(transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, KeyError):
        return False

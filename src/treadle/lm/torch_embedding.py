"""Vectors of texts: the mean over a model's last hidden states, of length 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm import torch_runtime


class Embedder:
    """A model without its head, loaded once, in float32."""

    def __init__(self, folder: Path, device: str, max_length: int) -> None:
        """Texts are cut at ``max_length`` tokens. ``UserError`` when the folder holds no such model."""
        import transformers

        self._tokenizer = padding_tokenizer(folder, max_length)
        self._model = torch_runtime.load(folder, transformers.AutoModel).to(device).eval()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text; of zeros where a text has no token."""
        import torch

        encodings = self._tokenizer.encode_batch(list(texts))
        width = max(map(len, encodings), default=0)
        if width == 0:
            return [[0.0] * self._model.config.hidden_size for _ in texts]
        with torch.inference_mode():
            rows: list[list[float]] = mean_vectors(self._model, encodings).tolist()
        return rows


def padding_tokenizer(folder: Path, max_length: int) -> Any:
    """The folder's tokenizer, which fills texts up to the longest and cuts them at ``max_length`` tokens."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: no tokenizer.json; expected a model folder as save_pretrained writes it")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding()
    tokenizer.encode_special_tokens = True  # a text that spells [SEP] is still one text
    return tokenizer


def mean_vectors(model: Any, encodings: Sequence[Any]) -> Any:
    """A tensor of shape (texts, width): the mean over each text's last hidden states, of length 1."""
    import torch

    ids = torch.tensor([each.ids for each in encodings], device=model.device)
    mask = torch.tensor([each.attention_mask for each in encodings], device=model.device)
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
    weights = mask[..., None].to(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)

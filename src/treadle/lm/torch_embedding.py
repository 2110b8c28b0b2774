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
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{folder}: no tokenizer.json; expected a model folder as save_pretrained writes it")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.enable_padding()
        self._tokenizer.encode_special_tokens = True  # a text that spells [SEP] is still one text
        self._model = torch_runtime.load(folder, transformers.AutoModel).to(device).eval()
        self._device = device

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text; of zeros where a text has no token."""
        import torch

        encodings = self._tokenizer.encode_batch(list(texts))
        width = max(map(len, encodings), default=0)
        if width == 0:
            return [[0.0] * self._model.config.hidden_size for _ in texts]
        ids = torch.tensor([e.ids for e in encodings], device=self._device)
        mask = torch.tensor([e.attention_mask for e in encodings], device=self._device)
        with torch.inference_mode():
            hidden: Any = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask[..., None].to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        rows: list[list[float]] = torch.nn.functional.normalize(mean, dim=-1).tolist()
        return rows

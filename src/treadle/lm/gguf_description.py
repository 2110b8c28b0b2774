"""What a GGUF says of a model folder's model and tokenizer, and whether it can: without reading weights, nor any
package that a plain installation does not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm import architecture
from treadle.lm.gguf_tokenizer import tokenizer_to_gguf
from treadle.lm.model_folder import read_config


def described(model_folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The folder's ``config.json``, and what a GGUF says of the model and its tokenizer.

    Raises ``UserError`` for those that this writer does not know, and files that cannot be read.
    """
    config = read_config(model_folder)
    try:
        return config, architecture.config_to_gguf(config, where=model_folder) | tokenizer_to_gguf(model_folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{model_folder}: no GGUF can be written of its config.json and tokenizer.json ({type(error).__name__}:"
            f" {error}); expected both as transformers' save_pretrained writes them, or set deploy.quantize: null"
        ) from None


def can_be_written(model_folder: Path) -> bool:
    """Whether a GGUF can say what the folder's model and tokenizer are."""
    try:
        described(model_folder)
    except UserError:
        return False
    return True

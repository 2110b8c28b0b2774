"""Models, tokenizers, training and the engine protocol."""

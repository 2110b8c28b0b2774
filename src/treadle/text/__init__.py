"""Documents, sources, normalization, personal data: text before it meets a model."""

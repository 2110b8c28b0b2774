"""The platforms' contracts: their bodies turned into our requests, our answers turned back. One small module each."""

from __future__ import annotations

from treadle.serve.contracts import open_inference, sagemaker, tensorflow_serving, vertex
from treadle.serve.contracts.contract import Contract


def contracts() -> tuple[Contract, ...]:
    """All that this server answers. ``UserError`` where the environment names paths that cannot be had."""
    return (sagemaker.CONTRACT, vertex.contract(), tensorflow_serving.CONTRACT, open_inference.CONTRACT)


def asked_port() -> int | None:
    """The port at which a platform says that it will ask; None where none does. ``UserError`` for what is no port."""
    return vertex.port()

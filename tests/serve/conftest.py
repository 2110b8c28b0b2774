"""Servers for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from toy_server import Served, serve_toy

from tiny_models import write_model


@pytest.fixture
def start() -> Iterator[Callable[..., Served]]:
    """Starts servers with other settings; they end with the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serve_toy(**settings))


@pytest.fixture
def served() -> Iterator[Served]:
    """A server as it comes."""
    with serve_toy() as running:
        yield running


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of SmolLM2's shape, small."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-llama")

"""Servers for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from toy_server import Served, serve_toy


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

"""A site, and a way to crawl it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crawl.site import Site
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.source import OpenSource, SourceContext, open_source, read_sources

QUICK = {"delay": 0.0, "seconds": 5.0, "largest": 1_000_000, "attempts": 2}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@dataclass
class Collected:
    documents: dict[str, Document]
    accounting: Accounting
    quarantined: dict[str, str] = field(default_factory=dict)

    def rule_of(self, url: str) -> str:
        """The rule under which an address is among the samples."""
        found = [rule for rule, kept in self.accounting.samples.items() if url in {each.locator for each in kept}]
        return found[0] if found else ""


def opened(project: Path, start: Any, **settings: Any) -> OpenSource:
    """The source, quick unless it is told otherwise."""
    crawl = {**QUICK, **settings.pop("crawl", {})}
    given = {"type": "website", "start": start, "contact": "crawler@example.org", "crawl": crawl, **settings}
    return open_source(given, SourceContext(project, str))


def collected(source: OpenSource) -> Collected:
    """What is in a crawl; the sum holds."""
    accounting = Accounting()
    documents = [document for batch in read_sources([source], accounting) for document in batch]
    quarantined = {piece.source.removeprefix("website:"): piece.reason for piece in accounting.close().quarantined}
    return Collected({document.locator: document for document in documents}, accounting, quarantined)


def crawled(project: Path, start: Any, **settings: Any) -> Collected:
    """Crawl, then read."""
    source = opened(project, start, **settings)
    source.refresh(lambda line: None, asked=True)
    return collected(source)

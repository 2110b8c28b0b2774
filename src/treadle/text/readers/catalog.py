"""The reader of each kind of document, loaded when it is needed."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import cast

from treadle.text.readers.piece import Reader

_MODULES = {"docx": "docx", "eml": "mail", "epub": "epub", "html": "html", "ipynb": "notebook", "md": "plain",
            "pdf": "pdf", "tex": "latex", "txt": "plain", "wiki": "wikitext", "xml": "xml"}  # fmt: skip
# What the texts depend on besides the bytes.
PACKAGES = ("charset-normalizer", "lxml", "pylatexenc", "pypdfium2", "resiliparse")


def reader_of(kind: str) -> Reader:
    """The function that reads a kind; ``KeyError`` for one that has none."""
    return cast(Reader, importlib.import_module(f"treadle.text.readers.{_MODULES[kind]}").read)


def versions() -> str:
    """The packages and their versions."""
    return " ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"

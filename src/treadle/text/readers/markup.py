"""XML parsed without what can be done with it: no entities, no DTD, no network, no depth that ends a parser."""

from __future__ import annotations

import re
from typing import Any

from treadle.core.errors import MissingExtra
from treadle.text.readers.piece import UnreadableError

_ENTITY = re.compile(rb"<!ENTITY\s", re.IGNORECASE)


def parse_xml(data: bytes, what: str, *, up_to_break: bool = False) -> Any:
    """The root element; ``UnreadableError`` for what is not well-formed, declares entities, or nests deeper than 255.
    With ``up_to_break``, of XML that is not well-formed what comes before the break and what can be read after it.
    """
    try:
        from lxml import etree
    except ImportError:
        raise MissingExtra("lxml", extra="documents") from None
    if _ENTITY.search(data[: 1 << 16]):
        raise UnreadableError(f"{what} declares entities, which could stand for anything; they are not expanded")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=up_to_break,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        words = str(error).lower()
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from None
        deep = "depth" in words
        raise UnreadableError(f"{what} is {'nested too deep' if deep else 'not well-formed XML'}") from None
    if root is None:
        raise UnreadableError(f"{what} is not XML")
    return root


def local(element: Any) -> str:
    """The name of an element without its namespace; empty for what is no element."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str | None:
    """An attribute by its name without namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return str(value)
    return None

"""What datatrove decides, run by the Python of its own environment: ``data_filters_peer.py decide|words|chain|alone``.

Documents come as JSON strings, one a line, from a file; answers go out as JSON, one a line.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any


def filters() -> dict[str, Any]:
    """The four filters in the order of the FineWeb pipeline, with their defaults."""
    names = {
        "gopher_repetition": ("gopher_repetition_filter", "GopherRepetitionFilter"),
        "gopher_quality": ("gopher_quality_filter", "GopherQualityFilter"),
        "c4": ("c4_filters", "C4QualityFilter"),
        "fineweb": ("fineweb_quality_filter", "FineWebQualityFilter"),
    }
    found = {}
    for name, (module, which) in names.items():
        found[name] = getattr(importlib.import_module(f"datatrove.pipeline.filters.{module}"), which)()
    return found


def judged(one: Any, text: str) -> tuple[str | None, str]:
    """Why a text is dropped, or None; and the text that is left."""
    document = importlib.import_module("datatrove.data").Document(text=text, id="1")
    found = one.filter(document)
    return (None, document.text) if found is True else (found[1], text)


def decisions(texts: list[str]) -> Iterator[dict[str, Any]]:
    """For each text what each filter says of it alone, and what the chain of the four does."""
    four = filters()
    for text in texts:
        alone = {name: judged(one, text) for name, one in four.items()}
        left, chain = text, None
        for name, one in four.items():
            reason, left = alone[name] if left == text else judged(one, left)
            if reason is not None:
                chain = f"{name}.{reason}"
                break
        yield {name: answer(*said) for name, said in alone.items()} | {"chain": answer(chain, left)}


def answer(reason: str | None, text: str) -> list[str | None]:
    """A reason, or None and the digest of the text that is left."""
    return [reason, None if reason else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]


def timed(texts: list[str], alone: bool) -> dict[str, float]:
    """Processor seconds of the chain over all texts, or of each filter alone."""
    four = filters()
    for one in four.values():
        judged(one, "A first text loads what is loaded on first use. " * 20)
    runs = {name: [one] for name, one in four.items()} if alone else {"chain": list(four.values())}
    seconds = {}
    for name, chosen in runs.items():
        importlib.import_module("datatrove.utils.text").split_into_parts.cache_clear()
        began = time.process_time()
        for text in texts:
            left = text
            for one in chosen:
                reason, left = judged(one, left)
                if reason is not None:
                    break
        seconds[name] = time.process_time() - began
    return seconds


def words(texts: list[str]) -> Iterator[list[list[str]]]:
    """Words and sentences of each text."""
    tokenizer = importlib.import_module("datatrove.utils.word_tokenizers").load_word_tokenizer("en")
    parts = importlib.import_module("datatrove.utils.text")
    for text in texts:
        yield [tokenizer.word_tokenize(text), parts.split_into_sentences(text)]


def main() -> None:
    """Read, decide, print."""
    task, path = sys.argv[1:3]
    with open(path, encoding="ascii") as file:  # noqa: PTH123 (one file for any Python)
        texts = [json.loads(line) for line in file]
    if task == "decide":
        for said in decisions(texts):
            print(json.dumps(said))
    elif task == "words":
        for found in words(texts):
            print(json.dumps(found))
    else:
        measured = {"seconds": timed(texts, task == "alone")}
        print(json.dumps({**measured, **{name: version(name) for name in ("datatrove", "spacy")}}))


if __name__ == "__main__":
    main()

"""Words and sentences as spaCy's English tokenizer has them: against what it said, and against itself where it can be
installed (slow).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.data_filters import documents

from importing.peers import peer
from text import english_cases as cases
from treadle.text.english.exceptions import special_cases
from treadle.text.english.text import EnglishText

_TABLES = """
import json
from spacy.lang.en.tokenizer_exceptions import TOKENIZER_EXCEPTIONS
from spacy.symbols import ORTH
print(json.dumps({chunk: [word[ORTH] for word in words] for chunk, words in TOKENIZER_EXCEPTIONS.items()}))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return dict(json.loads(cases.SAID.read_text("ascii")))


@pytest.fixture(scope="module")
def python() -> Path:
    return peer("datatrove", *cases.PACKAGES) / "python"


def split(text: str) -> list[list[str]]:
    found = EnglishText([text])
    return [found.words(), found.sentences()]


def test_words_and_sentences_are_those_that_were_recorded(said: dict[str, Any]) -> None:
    texts = cases.recorded_texts()
    assert len(texts) == len(said["words"]) > 250
    assert [split(text) for text in texts] == said["words"]


def test_words_are_the_text_without_its_white_space() -> None:
    for text in [*cases.chunks(200, seed=3), "\ud800 a\udfffb"]:
        assert "".join(EnglishText([text]).words()) == re.sub(r"\s", "", text)
        assert "".join(EnglishText([text]).sentences()) == text


def test_parts_are_split_each_by_itself() -> None:
    parts = ["One. Two", ". Three.", "", " ", "x:", ")y. No"]
    together = EnglishText(parts)
    assert together.words() == [word for part in parts for word in EnglishText([part]).words()]
    assert together.sentence_counts() == [len(EnglishText([part]).sentences()) for part in parts]


def test_a_word_of_a_million_characters_takes_no_time_to_speak_of() -> None:
    for unit in ("!", ".", "a@", "1.", "a.", "'", ":)", "\u2014-"):
        assert EnglishText([unit * 500_000]).word_count() > 0


def test_the_compiled_code_is_kept_until_a_source_changes() -> None:
    from treadle.text.english import compiled
    from treadle.text.english.phrases import words

    assert words._cache._cache_file._source_stamp == compiled._sources()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_was_recorded_is_what_they_say(said: dict[str, Any], python: Path) -> None:
    assert cases.asked(python) == said


@pytest.mark.slow
def test_special_cases_are_those_of_spacy(python: Path) -> None:
    done = subprocess.run([str(python), "-c", _TABLES], capture_output=True, text=True, check=True)
    theirs = {chunk: tuple(words) for chunk, words in json.loads(done.stdout).items() if not chunk.isspace()}
    assert special_cases() == theirs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["special cases", "characters", "made up", "real"])
def test_words_and_sentences_are_those_of_spacy(kind: str, python: Path, shared_data: Path) -> None:
    assert shared_data.is_dir()
    texts = {
        "special cases": lambda: list(cases.special_texts()),
        "characters": lambda: list(cases.character_texts()),
        "made up": lambda: list(cases.chunks(20_000, seed=7)),
        "real": documents,
    }[kind]()
    theirs = cases.ask(python, "words", texts)
    wrong = [number for number, (text, other) in enumerate(zip(texts, theirs, strict=True)) if split(text) != other]
    assert wrong == [], f"{len(wrong)} of {len(texts)}, Python {sys.version_info[:2]}"

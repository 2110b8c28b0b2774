"""Words and hashes of runs of words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treadle.text.words import located_words, run_hashes, word_numbers, words_of

WORDS = st.lists(st.sampled_from(["a", "b", "c", "delta", "naïve", "don't"]), max_size=20)


@given(st.text(max_size=200))
def test_places_are_where_the_words_are(text: str) -> None:
    located = located_words(text)
    assert [word.text for word in located] == words_of(text)
    assert all(text[word.start : word.end].casefold() == word.text for word in located)


def test_what_a_word_is() -> None:
    assert words_of("json.dumps(obj), Don't snake_case — naïve!") == [
        "json",
        "dumps",
        "obj",
        "don't",
        "snake",
        "case",
        "naïve",
    ]


@given(WORDS, WORDS, st.integers(1, 6))
def test_runs_have_equal_hashes_exactly_when_their_words_are_equal(
    first: list[str], second: list[str], length: int
) -> None:
    known: dict[str, int] = {}
    hashes = [run_hashes(word_numbers(words, known), length).tolist() for words in (first, second)]
    assert [len(found) for found in hashes] == [max(0, len(words) - length + 1) for words in (first, second)]
    for i, left in enumerate(hashes[0]):
        for j, right in enumerate(hashes[1]):
            assert (left == right) == (first[i : i + length] == second[j : j + length])


def test_numbers_are_the_same_in_every_process() -> None:
    assert word_numbers(["json"], {}).tolist() == [8843620237346534401]

"""Tools for a template that knows none: nothing of them is lost, and calls are read back as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.tool_prompt import call_text
from treadle.text.tool_calls import read_calls, same_calls

TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich", "days": [1]}},
}
TALK: Any = [
    {"role": "user", "content": "Is it warm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "21 degrees"},
    {"role": "assistant", "content": "Yes, 21 degrees."},
]


@pytest.fixture
def tokenizer(tiny_llama: Path) -> ChatTokenizer:
    """With SmolLM2's template, which has no tools."""
    return ChatTokenizer.load(tiny_llama)


def test_the_template_without_tools_shows_all_of_them(tokenizer: ChatTokenizer) -> None:
    text = tokenizer.render(TALK, tools=TOOLS, add_generation_prompt=False)
    assert text.count("<|im_start|>system\n") == 1
    assert '<tools>\n{"type": "function", "function": {"name": "weather"' in text
    assert (
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Z\u00fcrich", "days": [1]}}'
        in text
    )
    assert "<|im_start|>user\n<tool_response>\n21 degrees\n</tool_response><|im_end|>" in text
    own = tokenizer.render([{"role": "system", "content": "Be brief."}, *TALK], tools=TOOLS)
    assert "<|im_start|>system\nBe brief.\n\nYou may call these functions" in own
    assert tokenizer.render(TALK[:1]) == tokenizer.render(TALK[:1], tools=[])


def test_the_call_is_learned_and_the_tools_are_not(tokenizer: ChatTokenizer) -> None:
    ids, said = tokenizer.encode_for_training(TALK, tools=TOOLS)
    learned = tokenizer.decode([token for token, answer in zip(ids, said, strict=True) if answer])
    assert learned == call_text("", [CALL]) + "Yes, 21 degrees."
    asked = tokenizer.encode_chat(TALK[:1], tools=TOOLS)
    assert ids[: len(asked)] == asked
    assert said.index(True) == len(asked)


def test_what_is_written_is_read_back() -> None:
    other = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    said, calls = read_calls(call_text("Let me see.", [CALL, other]))
    assert said == "Let me see."
    assert same_calls([CALL, {"function": {"name": "f", "arguments": {}}}], calls)
    assert not same_calls([CALL], calls)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "<tool_call>{}</tool_call>",
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
        "<tool_call>" + "[" * 100_000,
        '{"name": "f", "arguments": {}} and more',
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert read_calls(text) == (text, [])

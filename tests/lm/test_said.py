"""A token is trained on exactly where the assistant speaks, by the templates of many models."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import SMOLLM_TEMPLATE

from treadle.core.errors import UserError
from treadle.lm.chat_template import ChatTemplate
from treadle.lm.said import Said
from treadle.lm.tokenizer import ChatTokenizer

MISTRAL = (  # in the manner of Mistral's: tools stand before the last question, so that history changes with each turn
    "{{ bos_token }}{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% if tools and m == asked[-1] %}"
    "{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{ '[INST] ' + m.content + '[/INST]' }}{% elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}"
    "{% for c in m.tool_calls %}{{ {'name': c.function.name, 'arguments': c.function.arguments, 'id': c.id} | tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}{{ ']' + eos_token }}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content | trim + eos_token }}{% elif m.role == 'tool' %}"
    "{{ '[TOOL_RESULTS] ' + {'content': m.content, 'call_id': m.tool_call_id} | tojson + '[/TOOL_RESULTS]' }}"
    "{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
)
PLAIN = (  # no control token at all
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
OWN = {"mistral": MISTRAL, "plain": PLAIN, "smollm2": SMOLLM_TEMPLATE}
# Those that TRL ships as their models do. DeepSeek writes arguments as text, gpt-oss ends its last turn otherwise,
# Qwen3 takes thoughts out of earlier turns, Phi-3 leaves out answers of tools, Llama 3.1 puts the tools into the
# first question and has one call a turn.
SHIPPED = ("llama3_1", "qwen3", "qwen2_5", "gemma3", "phi3", "gptoss", "deepseekv3", "lfm2", "nemotron_3_nano")
CALLING = ("mistral", "llama3_1", "qwen3", "qwen2_5", "gptoss", "deepseekv3", "lfm2_2_5", "nemotron_3_nano")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
TOKEN = re.compile("<\\|?[a-z_]+\\|?>|</[a-z_]+>|\\[/?[A-Z_]+\\]|<\uff5c[^\uff5c]+\uff5c>")
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "told", "parameters": {}}}]


def folder() -> Path:
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("trl, which ships the templates, is not installed")
    return Path(found.origin).parent / "chat_templates"


@cache
def source(name: str) -> str:
    return OWN.get(name) or (folder() / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def tokenizer_for(name: str) -> ChatTokenizer:
    """Bytes as tokens, and what the template writes in brackets as control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    control = sorted({*TOKEN.findall(source(name)), *SPECIAL.values()}) if name != "plain" else []
    made.add_special_tokens(control)
    settings = {**SPECIAL, "chat_template": source(name)}
    return ChatTokenizer(json.loads(made.to_str()), settings, {}, where=Path(name))


def called(name: str, said: str) -> list[dict[str, Any]]:
    """A conversation in which everything that the assistant says holds ``said``, and nothing else does."""
    call = {"id": "abcdefgh1", "type": "function", "function": {"name": "weather", "arguments": {"city": said}}}
    system = [] if name == "mistral" else [{"role": "system", "content": "told before"}]
    return [
        *system,
        {"role": "user", "content": "heard one"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefgh1", "name": "weather", "content": "heard two"},
        {"role": "assistant", "content": f"{said} {said}"},
        {"role": "user", "content": "heard three"},
        {"role": "assistant", "content": said},
    ]


def halves(tokenizer: ChatTokenizer, chat: Sequence[Any], tools: Any = None) -> tuple[list[str], str]:
    """Each stretch that is trained on, and all that is not."""
    ids, mask = tokenizer.encode_for_training(chat, tools=tools)
    assert len(ids) == len(mask)
    stretches: list[list[int]] = []
    for place, (token, trained) in enumerate(zip(ids, mask, strict=True)):
        if trained and (place == 0 or not mask[place - 1]):
            stretches.append([])
        if trained:
            stretches[-1].append(token)
    rest = [token for token, trained in zip(ids, mask, strict=True) if not trained]
    spoken = [tokenizer.decode(each, skip_special_tokens=False) for each in stretches]
    return spoken, tokenizer.decode(rest, skip_special_tokens=False)


@pytest.mark.parametrize("name", CALLING)
def test_words_and_calls_of_the_assistant_and_nothing_else(name: str) -> None:
    spoken, rest = halves(tokenizer_for(name), called(name, "spoken"), TOOLS)
    assert len(spoken) == 3
    assert "spoken" not in rest
    assert "heard" not in "".join(spoken)
    assert "told" not in "".join(spoken)
    assert "weather" in spoken[0]  # the name is of the call too
    assert [each.count("spoken") for each in spoken] == [1, 2, 1]
    assert "heard three" in rest


@pytest.mark.parametrize("name", CALLING)
def test_ids_are_those_of_the_conversation(name: str) -> None:
    tokenizer = tokenizer_for(name)
    chat = called(name, "spoken")
    ids, _ = tokenizer.encode_for_training(chat, tools=TOOLS)
    assert ids == tokenizer.encode_chat(chat, tools=TOOLS, add_generation_prompt=False)


# Letters of its own for each speaker; spelled control tokens, ends of turns and blanks wherever they want.
awkward = st.sampled_from(
    ["<|im_end|>\n<|im_start|>assistant\n", "<|eot_id|>", "</s>", "[/INST]", "<think>", "</think>", "<|end|>",
     "<|return|>", "### assistant:\n", " ", "\n\n", '"}}', "{{ x }}", "<\uff5cAssistant\uff5c>", "\U000f0000",
     "<end_of_turn>", "é", "\\"]
)  # fmt: skip


def words(letter: str) -> st.SearchStrategy[str]:
    pieces = st.lists(st.one_of(awkward, st.just(letter)), max_size=5)
    return st.tuples(pieces, pieces).map(lambda two: letter + "".join(two[0]) + letter + "".join(two[1]) + letter)


@pytest.mark.parametrize("name", [*OWN, *SHIPPED])
@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(words("Ж"), words("Ω")), min_size=1, max_size=3))
def test_no_content_moves_the_line_between_speakers(name: str, turns: list[tuple[str, str]]) -> None:
    tokenizer = tokenizer_for(name)
    chat = [
        message
        for asked, answered in turns
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answered})
    ]
    spoken, rest = halves(tokenizer, chat)
    assert "Ж" not in "".join(spoken)
    assert "Ω" not in rest
    harmless = [{**m, "content": re.sub("[^ЖΩ]", "", m["content"])} for m in chat]
    if not any("think" in m["content"] for m in chat):  # thoughts are the template's to write
        assert controls(tokenizer, chat) == controls(tokenizer, harmless)


def controls(tokenizer: ChatTokenizer, chat: Sequence[Any]) -> list[tuple[int, bool]]:
    """The control tokens of a conversation, each with whether it is trained on."""
    ids, mask = tokenizer.encode_for_training(chat)
    return [(i, m) for i, m in zip(ids, mask, strict=True) if i > 255]


@pytest.mark.parametrize("name", ["gemma3", "phi3", "lfm2", "qwen3_vl", "qwen3_instruct_2507", "gemma", "llama3"])
def test_what_is_found_is_what_the_template_marks_where_it_marks(name: str) -> None:
    """TRL's copies for training mark with {% generation %} what the original leaves to be found."""
    chat = [
        {"role": "user", "content": " Why? "},
        {"role": "assistant", "content": " Because.\n"},
        {"role": "user", "content": "Because."},
        {"role": "assistant", "content": "Because. <|im_end|>"},
    ]
    free = ("\U000f0000", "\U000f0001")
    control = frozenset(TOKEN.findall(source(name)))
    found = Said(ChatTemplate(source(name), SPECIAL, where=Path(name)), chat, None, free, control)
    marked = ChatTemplate(source(f"{name}_training"), SPECIAL, where=Path(name))
    assert marked.marks_generation
    truth = Said(marked, chat, None, free, control)
    assert truth.whole == found.whole
    ours, theirs = ([said.whole[a:b].rstrip() for a, b in said.spans()] for said in (found, truth))
    assert ours == theirs


def test_thoughts_are_trained_on_where_the_template_keeps_them() -> None:
    chat = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>\nfirst thought\n</think>\n\nfirst"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "<think>\nsecond thought\n</think>\n\nsecond"},
    ]
    spoken, _ = halves(tokenizer_for("qwen3"), chat)
    stripped = [re.sub(r"\s+", " ", each).strip() for each in spoken]
    assert stripped == ["first<|im_end|>", "<think> second thought </think> second<|im_end|>"]


def test_a_template_that_puts_others_words_into_the_turn_is_refused() -> None:
    call = {"id": "abcdefgh1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "heard"},
        {"role": "assistant", "content": "spoken", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefgh1", "name": "weather", "content": "heard"},
        {"role": "assistant", "content": "spoken"},
    ]
    with pytest.raises(UserError, match="cannot tell what the assistant says by this chat template"):
        tokenizer_for("gemma4").encode_for_training(chat, tools=TOOLS)

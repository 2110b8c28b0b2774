"""A model folder's tokenizer and chat template, without torch or transformers: the gateway imports this.

Ids equal those of transformers' ``apply_chat_template``. The one difference is on purpose: a message that spells a
control token (``<|im_end|>``) gets it as plain text, because only the template may open and close a turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from treadle.core.errors import MissingExtra, UserError
from treadle.lm.conversation import with_written_arguments
from treadle.lm.model_folder import read_object
from treadle.lm.scored_pair import answer_pair, text_pair
from treadle.lm.source_encoder import UNSAID_LENGTH, SourceEncoder, writes_targets
from treadle.lm.spelled import mark
from treadle.lm.tool_prompt import with_functions, with_written_calls

try:
    from tokenizers import Tokenizer

    from treadle.lm.chat_template import ChatTemplate, control_text
    from treadle.lm.incremental_decoder import IncrementalDecoder, token_bytes
    from treadle.lm.said import Said
    from treadle.lm.token_spelling import spelled_tokens
except ModuleNotFoundError as error:
    raise MissingExtra(str(error.name), extra="data") from None

ROLES = ("system", "developer", "user", "assistant", "tool")
Message = Mapping[str, Any]
T = TypeVar("T")

_MAX_TOKENIZER_BYTES = 256 << 20
_MAX_CONFIG_BYTES = 16 << 20
_UNSET_LENGTH = 1 << 30  # transformers writes 1e30 for "no limit"


class ChatTokenizer:
    """Text and conversations to token ids and back. Immutable after ``load``; safe to share between threads."""

    def __init__(
        self,
        tokenizer: dict[str, Any],
        settings: dict[str, Any],
        model: dict[str, Any],
        *,
        where: Path,
        opening: str | None = None,
    ) -> None:
        """``tokenizer``, ``settings`` and ``model``: tokenizer.json, tokenizer_config.json and config.json, parsed.
        ``opening`` as in ``load``."""
        self._where = where
        self._opening = opening
        self._firm = _firm_tokens(tokenizer)
        self._opened: tuple[str, int, list[int]] | None = None
        self._tokenizer = _open_tokenizer(tokenizer, where)
        source = settings.get("chat_template")
        self._decoding = tokenizer.get("decoder") or {}
        self._template = ChatTemplate(source, _special_tokens(settings), where=where) if source else None
        self._control = _control_tokens(tokenizer, control_text(source) if source else "")
        self._control_ids = frozenset(self._tokenizer.token_to_id(token) for token in self._control)
        kept = [token for token in tokenizer.get("added_tokens", []) if token["content"] not in self._control]
        self._plain = _open_tokenizer({**tokenizer, "added_tokens": kept}, where)
        self._spelled = re.compile("|".join(map(re.escape, sorted(self._control, key=len, reverse=True))) or "(?!)")
        self._newline = self._plain.encode("\n", add_special_tokens=False).ids
        self.vocabulary_size = int(model.get("vocab_size") or self._tokenizer.get_vocab_size())
        self.sources = SourceEncoder(self._plain, model, where=where) if writes_targets(model) else None
        self.context_length = _context_length(model, settings) or (UNSAID_LENGTH if self.sources else 0)
        self.eos_ids = self._end_ids(model, settings)
        special = _special_tokens(settings)
        first = special.get("bos_token") or special.get("eos_token") or ""
        self.first_id = self._tokenizer.token_to_id(first)

    @classmethod
    def load(cls, folder: Path, *, opening: str | None = None) -> ChatTokenizer:
        """Read ``tokenizer.json`` and what stands beside it; ``UserError`` when that is missing or unreadable.

        ``opening``: the system message of most conversations, which is encoded once for all of them.
        """
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise UserError(
                f"{folder}: no tokenizer.json; expected a model folder as transformers' save_pretrained writes it"
            )
        tokenizer = _read_json(folder / "tokenizer.json", _MAX_TOKENIZER_BYTES)
        settings = _read_json(folder / "tokenizer_config.json", _MAX_CONFIG_BYTES)
        if (jinja := folder / "chat_template.jinja").is_file():
            if jinja.stat().st_size > _MAX_CONFIG_BYTES:
                raise UserError(f"{jinja}: larger than {_MAX_CONFIG_BYTES >> 20} MiB; not a chat template")
            settings["chat_template"] = jinja.read_text(encoding="utf-8")
        if isinstance(settings.get("chat_template"), list):  # several by name; the unnamed use is "default"
            named = {entry["name"]: entry["template"] for entry in settings["chat_template"]}
            settings["chat_template"] = named.get("default")
        model = _read_json(folder / "config.json", _MAX_CONFIG_BYTES)
        generation = _read_json(folder / "generation_config.json", _MAX_CONFIG_BYTES)
        model["eos_token_id"] = [
            *_id_list(model.get("eos_token_id")),
            *_id_list(generation.get("eos_token_id")),
        ]
        return cls(tokenizer, settings, model, where=folder, opening=opening)

    @property
    def has_chat_template(self) -> bool:
        """False for a base model that was never taught to chat; an encoder-decoder needs none."""
        return self._template is not None or self.sources is not None

    def room(self, limit: int, prompt: int) -> int:
        """How many tokens of an answer a context of ``limit`` leaves beside a prompt; less than 1: none. An
        encoder-decoder reads its source apart."""
        return limit if self.sources is not None and prompt <= limit else limit - prompt

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation as the template writes it, for people to read; encoding goes through ``encode_chat``."""
        plain, tools = self._plainly(messages, tools)
        return self._tried(plain, lambda each: self._rendered(each, add_generation_prompt, tools))

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Ids of the whole conversation, ready to be continued by the assistant when ``add_generation_prompt``.

        ``tools``: the functions it may call, as OpenAI describes them. Where the template knows none, they stand in
        the system message, and calls in the text (``lm.tool_prompt``).
        """
        if self.sources is not None:
            return self.encode_prompt(self.sources.source(self._checked(messages)))
        marked, described, marks = mark(*self._plainly(messages, tools), self._spelled)
        text = self._tried(marked, lambda each: self._rendered(each, add_generation_prompt, described))
        if self._opening and marks is None and not described and marked[0]["content"] == self._opening:
            return self._encode_opened(text)
        return self._encode_marked(text, marks)

    def encode_for_training(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[int], list[bool]]:
        """Ids, and for each whether the assistant says it: its words, its calls, and the token that ends its turn.

        The prompt before an answer is encoded as ``encode_chat`` encodes it for serving, the answer apart from it,
        so that training sees the token boundary that generation will see.
        """
        if self.sources is not None:
            return self.sources.example(self._checked(messages), self.context_length)
        told = mark(*self._plainly(messages, tools), self._spelled)
        marks, free, template = told.marks, told.free(), self._require_template()
        said = self._tried(told.messages, lambda each: Said(template, each, told.tools, free, self._control))
        whole = said.whole
        ids: list[int] = []
        mask: list[bool] = []
        done = 0
        for start, end in said.spans():
            prompt = self._encode_marked(whole[done:start], marks, first=not ids)
            answer = self._encode_marked(whole[start:end], marks, first=False)
            last = max((i + 1 for i, token in enumerate(answer) if token in self.eos_ids), default=len(answer))
            ids += prompt + answer
            mask += [False] * len(prompt) + [i < last for i in range(len(answer))]
            done = end
        rest = self._encode_marked(whole[done:], marks, first=not ids)
        return ids + rest, mask + [False] * len(rest)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no token is added, and spelled control tokens are plain text too."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_answer(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Ids of a conversation before its last answer, and of that answer, to be scored."""
        return answer_pair(self, messages)

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a bare text and of what continues it, to be scored. ``UserError`` as ``scored_pair.text_pair``."""
        return text_pair(self, context, continuation)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a bare text to be continued, or read as the source: that is all an encoder-decoder takes."""
        return self.encode(text) if self.sources is None else self.sources.encode([text])[0][0]

    def encode_whole(self, text: str) -> list[int]:
        """Ids of plain text with what the tokenizer puts around every text (Llama's first token)."""
        return list(self._plain.encode(text).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` for many texts, in parallel where the machine has cores to spare."""
        return [list(e.ids) for e in self._plain.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD, ids outside the vocabulary nothing."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def decoder(self) -> IncrementalDecoder:
        """A fresh decoder for one stream of ids."""
        return IncrementalDecoder(self._tokenizer, self._byte_table)

    def token_id(self, token: str) -> int | None:
        """The id of one vocabulary entry, spelled as the vocabulary spells it."""
        return self._tokenizer.token_to_id(token)

    def spell(self, token: int) -> bytes:
        """What one id stands for, which may be part of a character; a control token as the vocabulary spells it."""
        table = self._spelled_tokens
        if table is not None and 0 <= token < len(table) and table[token]:
            return table[token]
        return (self._tokenizer.id_to_token(token) or "").encode()

    def vocabulary(self) -> dict[str, int]:
        """Ids by token, those added later included."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    @cached_property
    def _byte_table(self) -> list[bytes] | None:
        return token_bytes(self._tokenizer, self._decoding.get("type"))

    @cached_property
    def _spelled_tokens(self) -> list[bytes] | None:
        return spelled_tokens(self._tokenizer, self._decoding)

    def _require_template(self) -> ChatTemplate:
        if self._template is None:
            raise UserError(
                f"{self._where}: the model has no chat template; choose an instruction-tuned model for task: chat"
            )
        return self._template

    def _plainly(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
    ) -> tuple[list[Message], Sequence[Mapping[str, Any]] | None]:
        """Messages and tools as the template can show them."""
        checked, template = self._checked(messages), self._template
        if template is None:
            return checked, tools
        if tools and not template.shows_tools:
            checked, tools = with_functions(checked, tools), None
        if not template.writes_calls and any(each.get("tool_calls") or each["role"] == "tool" for each in checked):
            checked = with_written_calls(checked)
        return checked, tools

    def _checked(self, messages: Sequence[Message]) -> list[Message]:
        if not messages:
            raise UserError("messages: expected at least one message, got none")
        for index, message in enumerate(messages):
            if message.get("role") not in ROLES:
                raise UserError(
                    f"messages[{index}].role: expected one of {', '.join(ROLES)}; got {message.get('role')!r}"
                )
            if not isinstance(message.get("content"), str):
                raise UserError(
                    f"messages[{index}].content: expected text, got {type(message.get('content')).__name__}"
                )
        return list(messages)

    def _rendered(self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]] | None) -> str:
        return self._require_template().render(messages, prompt, tools)

    def _tried(self, messages: list[Message], use: Callable[[list[Message]], T]) -> T:
        """Templates differ in whether a call's arguments are an object or its JSON text: the object first."""
        try:
            return use(messages)
        except UserError:
            written = [with_written_arguments(message) for message in messages]
            if written == messages:
                raise
            return use(written)

    def _encode_marked(self, text: str, marks: tuple[str, str] | None, *, first: bool = True) -> list[int]:
        if marks is None:
            return self._encode_piece(self._tokenizer, text, first=first)
        before, after = marks
        ids: list[int] = []
        # A template that cuts strings can part two marks: a lone one is dropped, yet keeps its sides from joining.
        for position, piece in enumerate(re.split(f"{before}({self._spelled.pattern}){after}|[{before}{after}]", text)):
            if not piece:
                continue
            plain = position % 2 == 1
            more = self._encode_piece(self._plain if plain else self._tokenizer, piece, first=first and not ids)
            if plain and not self._control_ids.isdisjoint(more):
                raise UserError(
                    f"{self._where}: cannot write {piece!r} as plain text with this tokenizer; leave it out"
                )
            ids += more
        return ids

    def _encode_opened(self, text: str) -> list[int]:
        """Ids of a conversation that begins with the opening, of which only what follows it is encoded.

        Firm tokens are taken out of a text before anything else is done with it, so what stands before one and what
        stands behind it are encoded apart in any case.
        """
        opened = self._opened
        if opened is None or not text.startswith(opened[0]):
            opened = self._opened = self._found_opening(text)
        if opened is None:
            return self._encode_piece(self._tokenizer, text, first=True)
        _, end, ids = opened
        return ids + self._encode_piece(self._tokenizer, text[end:], first=True)

    def _found_opening(self, text: str) -> tuple[str, int, list[int]] | None:
        """The beginning with the firm token behind the opening, where that token stands, and the ids before it."""
        place = text.find(self._opening or "")
        token = self._firm.search(text, place + len(self._opening or "")) if place >= 0 else None
        if token is None:
            return None
        head, end = text[: token.end()], token.start()
        ids = self._encode_piece(self._tokenizer, head[:end], first=True)
        parted = self._encode_piece(self._tokenizer, head, first=True) == [*ids, self._tokenizer.token_to_id(token[0])]
        return (head, end, ids) if parted else None

    def _encode_piece(self, tokenizer: Tokenizer, text: str, *, first: bool) -> list[int]:
        """Encode what stands in the middle of a text: behind a newline, so that SentencePiece adds no leading space."""
        if not text:
            return []
        if not first:
            ids = tokenizer.encode("\n" + text, add_special_tokens=False).ids
            if ids[: len(self._newline)] == self._newline:
                return list(ids[len(self._newline) :])
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    def _end_ids(self, model: dict[str, Any], settings: dict[str, Any]) -> frozenset[int]:
        ids = set(_id_list(model.get("eos_token_id")))
        token = _special_tokens(settings).get("eos_token")
        if token is not None and (known := self._tokenizer.token_to_id(token)) is not None:
            ids.add(known)
        return frozenset(ids)


def _open_tokenizer(data: dict[str, Any], where: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"{where / 'tokenizer.json'}: not a tokenizer ({error}); copy it again from the model"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _control_tokens(tokenizer: dict[str, Any], template_text: str) -> frozenset[str]:
    """Special tokens, and those added tokens that the template itself writes (``<think>`` is often not special)."""
    return frozenset(
        token["content"]
        for token in tokenizer.get("added_tokens", [])
        if token["content"] and (token.get("special") or token["content"] in template_text)
    )


def _firm_tokens(tokenizer: dict[str, Any]) -> re.Pattern[str]:
    """Finds added tokens that stand for their own characters and no others, wherever these are."""
    loose = ("single_word", "lstrip", "rstrip", "normalized")
    added = tokenizer.get("added_tokens", [])
    firm = [each["content"] for each in added if each["content"] and not any(each.get(name) for name in loose)]
    return re.compile("|".join(map(re.escape, sorted(firm, key=len, reverse=True))) or "(?!)")


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """``bos_token`` and the like as text; transformers writes either text or an object with ``content``."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            found[key] = text
    return found


def _context_length(model: dict[str, Any], settings: dict[str, Any]) -> int:
    """In tokens; 0 where nothing says."""
    sizes = (model.get("max_position_embeddings"), model.get("n_positions"), settings.get("model_max_length"))
    return next((int(size) for size in sizes if size and size < _UNSET_LENGTH), 0)


def _id_list(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [int(v) for v in values if isinstance(v, int)]


def _read_json(path: Path, limit: int) -> dict[str, Any]:
    """A JSON object of at most ``limit`` bytes; an empty one where there is no file."""
    return read_object(path, limit) if path.is_file() else {}

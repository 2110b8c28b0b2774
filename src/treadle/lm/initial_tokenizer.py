"""The tokenizer of a model from nothing: learned from text or another model's, with what its family asks for.

llama, gpt2   one token that ends a text and a turn, one that begins a turn; a chat template
bert          [PAD] [CLS] [SEP] [MASK], and [CLS] text [SEP] around each text
t5            <pad> </s>, and </s> behind each text
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm.initial_model import Architecture, parameters_of
from treadle.lm.tokenizer_training import Kind, train_tokenizer

TURN = "<|im_start|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{% if tools or message.tool_calls or message.role == 'tool' %}"
    "{{ raise_exception('this template knows no tools') }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
KINDS: dict[Architecture, Kind] = {"llama": "bpe", "gpt2": "bpe", "bert": "wordpiece", "t5": "bpe"}
SPECIAL: dict[Architecture, tuple[str, ...]] = {
    "llama": ("<|im_end|>", TURN),
    "gpt2": ("<|im_end|>", TURN),
    "bert": ("[PAD]", "[CLS]", "[SEP]", "[MASK]"),
    "t5": ("</s>", "<pad>"),
}
_NAMED: dict[str, dict[str, str]] = {
    "bert": {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
    "t5": {"pad_token": "<pad>"},
}
_AROUND = {"bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"), "t5": ("$A </s>", "$A </s> $B </s>")}
_ENDS = {"bert": "[SEP]", "t5": "</s>"}
_SHARE = 5  # a fifth of the parameters goes into the embeddings
_VOCABULARIES = (512, 32_000)
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def vocabulary_for(size: str) -> int:
    """Tokens whose embeddings take about a fifth of the parameters, at a width of 64 times the layers."""
    parameters = parameters_of(size)
    width: float = (parameters * 64 / 12) ** (1 / 3)  # 12 squares of the width a layer
    fitting = round(parameters / _SHARE / width / 256) * 256
    return max(_VOCABULARIES[0], min(_VOCABULARIES[1], fitting))


def learn_tokenizer(
    folder: Path,
    texts: Callable[[], Iterable[str]],
    *,
    architecture: Architecture,
    kind: Kind,
    vocabulary: int,
    special: Sequence[str],
) -> None:
    """Learn one from ``texts`` and write it to ``folder``; ``special`` come first, then what the family asks for.

    Raises ``UserError`` as ``train_tokenizer``.
    """
    generates = architecture not in _AROUND
    needed = (TURN,) if generates and special else SPECIAL[architecture]  # the first of ``special`` ends a text
    wanted = [*special, *(token for token in needed if token not in special)]
    train_tokenizer(folder, texts, kind=kind, vocabulary=vocabulary, special=wanted)
    _dress(folder, architecture, wanted[0])


def _dress(folder: Path, architecture: Architecture, end: str) -> None:
    """Name the tokens, put them around texts, and add the template."""
    from tokenizers.processors import TemplateProcessing

    settings = _settings(folder)
    settings |= {"eos_token": _ENDS.get(architecture, end)}
    settings |= _NAMED.get(architecture, {})
    around = _AROUND.get(architecture)
    if around is None:
        settings["chat_template"] = TEMPLATE
    else:
        tokenizer = _opened(folder)
        named = [(token, tokenizer.token_to_id(token)) for token in SPECIAL[architecture] if token in around[0]]
        tokenizer.post_processor = TemplateProcessing(single=around[0], pair=around[1], special_tokens=named)
        _write_tokenizer(folder, tokenizer)
    _write_settings(folder, settings)


def take_tokenizer(base: Path, folder: Path, architecture: Architecture, name: str) -> None:
    """Copy the tokenizer of the model folder ``base``: a chat template added where a generator lacks one, an encoder's
    tokens named where its settings do not name them, and nothing that fills a text up or cuts it off.

    ``UserError`` where it lacks a token that the family cannot do without.
    """
    check_suits(base, architecture, name)
    for each in _FILES:
        if (base / each).is_file():
            shutil.copyfile(base / each, folder / each)
    before, tokenizer, settings = _opened(folder), _plain(folder), _settings(folder)
    if before.padding or before.truncation:
        _write_tokenizer(folder, tokenizer)
    if architecture in _AROUND:
        named = _NAMED[architecture] | {"eos_token": _ENDS[architecture]}
        lacking = {key: token for key, token in named.items() if not settings.get(key)}
        if lacking:
            _write_settings(folder, settings | lacking)
        return
    if settings.get("chat_template") or (folder / _FILES[2]).is_file():
        return
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken(TURN, special=True, normalized=False)])
    _write_tokenizer(folder, tokenizer)
    _write_settings(folder, settings | {"chat_template": TEMPLATE})


def check_suits(base: Path, architecture: Architecture, name: str) -> None:
    """``UserError`` unless the tokenizer of a model folder has the tokens that a family cannot do without."""
    where = f"develop.init.tokenizer: that of {name}"
    if not (base / "tokenizer.json").is_file():
        raise UserError(f"{where} has no tokenizer.json; name another model, or leave it out to learn one")
    tokenizer, settings = _plain(base), _settings(base)
    if architecture in _AROUND:
        lacking = [token for token in SPECIAL[architecture] if tokenizer.token_to_id(token) is None]
        ends = tokenizer.encode("a", add_special_tokens=True).ids[-1:]
        end = tokenizer.token_to_id(_ENDS[architecture])
        if lacking or ends != [end]:
            what = f"has no {lacking[0]}" if lacking else "puts no end behind a text"
            raise UserError(f"{where} {what}, which {architecture} needs; leave it out to learn one")
    else:
        end = settings.get("eos_token")
        text = end.get("content") if isinstance(end, dict) else end
        if not isinstance(text, str) or tokenizer.token_to_id(text) is None:
            raise UserError(f"{where} names no token that ends a text; leave it out to learn one")


def _opened(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _plain(folder: Path) -> Any:
    """The tokenizer of a folder, which fills no text up and cuts none off, as those of sentence encoders do."""
    tokenizer = _opened(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return dict(found)


def _write_settings(folder: Path, settings: dict[str, Any]) -> None:
    text = json.dumps(settings, indent=1, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

"""Questions and answers out of reference documentation: a docstring's name asks, its first sentence answers.

Names and signatures come from the document's ``locator`` and ``fields`` (``module``, ``signature``,
``summary``); nothing is imported or run here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from treadle.core.digest import blake3_bytes
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.outcomes import SOURCE as FILES
from treadle.text.words import words_of

MIN_WORDS = 3
MAX_WORDS = 60
TOPIC = "topic"
_TOPIC_WORDS = 6  # less is a remark like "New in version 3.5."
_REASON = 120  # characters of an answer that a reason quotes
_MAX_SIGNATURE = 60  # characters; a longer one costs more tokens than the whole answer

_ROLE = re.compile(r":[a-z:]+:`~?!?([^`<]+?)(?:\s*<[^`>]*>)?`")  # :func:`name`, :class:`text <name>`
_TICKS = re.compile(r"``([^`]+)``|`([^`']+)[`']")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}([^\s*][^*]*?)\*{1,2}(?![\w*])")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\betc\.)(?<!\bvs\.)(?<!\bcf\.)\s+(?=[\"'(A-Z0-9])")
_RESULT_THEN_TEXT = re.compile(r"->\s*[\w.\[\], ]+?[.:]\s+(?=[A-Z])")  # "f(x) -> int.  Does this."
_NOT_PROSE = (">>>", ":param", "@param", "- ", "* ")
_FILLERS = frozenset(re.findall(r"\w+", "a an and class for function in is it its method module object of the this to"))

# One interface, several modules: without these names one half would be tested on what the other half taught.
_FAMILIES = {
    "posix": "os",
    "nt": "os",
    "posixpath": "os",
    "ntpath": "os",
    "genericpath": "os",
    "sre_compile": "re",
    "sre_parse": "re",
    "sre_constants": "re",
    "frozen_importlib": "importlib",
    "frozen_importlib_external": "importlib",
    "collections_abc": "collections",
    "bootlocale": "locale",
    "strptime": "time",
    "weakrefset": "weakref",
    "cProfile": "profile",
    "dummy_thread": "threading",
    "thread": "threading",
    "threading_local": "threading",
    "elementtree": "xml",
}

_RULES = {
    "no_name": "documents no name of Python: a file or page, without a `module` among its fields",
    "private_name": "a part of the name begins with an underscore",
    "no_summary": "no sentence before the first blank line, list or example",
    "too_short": f"fewer than {MIN_WORDS} words",
    "too_long": f"more than {MAX_WORDS} words",
    "memory_address": "contains a memory address",
    "not_prose": "mostly symbols",
    "repeats_name": "says only what the name says",
    "repeated_answer": "a more public name has the same answer",
}

_ASK_FUNCTION: tuple[str, ...] = (
    "What does {name} do?",
    "What does {name}{signature} do?",
    "What is {name} for?",
    "In Python, what does {name}{signature} do?",
    "Explain {name} briefly.",
)
_ASK_CLASS: tuple[str, ...] = (
    "What is {name}?",
    "What is the class {name} for?",
    "What does the class {name}{signature} represent?",
    "Explain {name} briefly.",
)
_ASK_PROPERTY: tuple[str, ...] = ("What is {name}?", "What does {name} hold?", "Explain {name} briefly.")
_ASK_TOPIC: tuple[str, ...] = (
    "What does Python's reference say about {name}?",
    "In Python's reference, what is {name}?",
    "Explain {name} in Python briefly.",
)
_ASK_MODULE: tuple[str, ...] = (
    "What is the {name} module for?",
    "What does the {name} module do?",
    "Explain the module {name} briefly.",
)


def docstring_qa(documents: Sequence[Document], *, system_prompt: str = "") -> Iterator[Example | Dropped]:
    """One question and answer per documented name; of names that share an answer only the most public one is
    kept, and of files and pages without a ``module`` none.

    The phrasing depends on the document's id alone, so it is the same in every run, and adding a document
    changes no other question.
    """
    chosen: dict[tuple[str, ...], tuple[tuple[bool, int, int, str], int]] = {}
    answers: list[str] = []
    rules: list[str] = []
    for place, document in enumerate(documents):
        name, answer = document.locator, _answer(document)
        rule = unusable(name, answer) if _documents_a_name(document) else "no_name"
        answers.append(answer)
        rules.append(rule)
        if not rule:
            key = tuple(words_of(answer))
            rank = (family(name) != name.partition(".")[0], name.count("."), len(name), name)
            if key not in chosen or rank < chosen[key][0]:
                chosen[key] = (rank, place)
    keep = {place for _, place in chosen.values()}
    for place, (document, answer, rule) in enumerate(zip(documents, answers, rules, strict=True)):
        if rule or place not in keep:
            broken = rule or "repeated_answer"
            yield Dropped(document, broken, _RULES[broken] + (f": {answer[:_REASON]}" if answer else ""))
            continue
        module = str(document.fields.get("module") or document.locator.rpartition(".")[0] or document.locator)
        messages = [{"role": "user", "content": question(document)}, {"role": "assistant", "content": answer}]
        if system_prompt:
            messages.insert(0, {"role": "system", "content": system_prompt})
        yield Example(
            (document.id,),
            messages=tuple(messages),
            group=family(module),
            fields={"locator": document.locator, "module": module},
        )


def _documents_a_name(document: Document) -> bool:
    """Whether its locator is a name. Of a file, ``guide.md`` looks like one."""
    if document.fields.get("module"):
        return True
    return document.source != FILES and all(part.isidentifier() for part in document.locator.split("."))


def question(document: Document) -> str:
    """What a user would ask about a name, in one of a few phrasings chosen by the document's id."""
    name = document.locator
    last = name.rpartition(".")[2]
    kind = document.fields.get("kind")
    if kind == TOPIC:
        phrasings, name = _ASK_TOPIC, _topic(document.text)[0]
    elif kind == "module" or name == document.fields.get("module") or "." not in name:
        phrasings = _ASK_MODULE
    elif kind == "property":
        phrasings = _ASK_PROPERTY
    elif kind == "class" or (kind is None and last[:1].isupper()):
        phrasings = _ASK_CLASS
    else:
        phrasings = _ASK_FUNCTION
    chosen = int(blake3_bytes(document.id.encode())[3:11], 16) % len(phrasings)
    return phrasings[chosen].format(name=name, signature=_shown_signature(document))


def family(module: str) -> str:
    """The group a module is split by: its top-level package, with C accelerators and platform twins beside
    their front.
    """
    top = module.partition(".")[0]
    bare = top.lstrip("_")
    if bare != top and bare.startswith("py") and len(bare) > 2:  # _pydecimal, _pyio
        bare = bare.removeprefix("py")
    return _FAMILIES.get(bare, bare or top)


def summary(text: str, name: str) -> str:
    """The first sentence of a docstring as plain text: no signature line, no markup, no line breaks; empty
    when there is none.
    """
    plain = _plain(_first_paragraph(text, name))
    sentence = _SENTENCE_END.split(plain, maxsplit=1)[0].strip(" -:")
    return sentence + "." if sentence[-1:].isalnum() or sentence.endswith(")") else sentence


def unusable(name: str, answer: str) -> str:
    """The rule by which a name and its first sentence are no example, or an empty text."""
    if any(part.startswith("_") for part in name.split(".")):
        return "private_name"
    if not answer:
        return "no_summary"
    words = words_of(answer)
    if len(words) < MIN_WORDS:
        return "too_short"
    if len(words) > MAX_WORDS:
        return "too_long"
    if re.search(r" at 0x[0-9a-fA-F]{4,}", answer):
        return "memory_address"
    if sum(character.isalpha() or character == " " for character in answer) < 0.7 * len(answer):
        return "not_prose"
    said_by_name = set(words_of(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)))
    return "repeats_name" if set(words) <= said_by_name | _FILLERS else ""


def _answer(document: Document) -> str:
    if document.fields.get("kind") == TOPIC:
        return summary(_topic(document.text)[1], document.locator)
    given = document.fields.get("summary")
    return summary(given if isinstance(given, str) and given.strip() else document.text, document.locator)


def _topic(text: str) -> tuple[str, str]:
    """Title and first paragraph of prose of a chapter of the reference (``help("assert")``)."""
    title, prose = "", ""
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        if len(lines) == 2 and not set(lines[1]) - set("*=-~^"):
            title = title or lines[0].strip()
        elif title and lines and not lines[0].startswith(" ") and len(words_of(paragraph)) >= _TOPIC_WORDS:
            prose = paragraph
            break
    return title.replace('"', "").lower().removeprefix("the "), prose


def _shown_signature(document: Document) -> str:
    signature = document.fields.get("signature")
    if not isinstance(signature, str) or " at 0x" in signature or not signature.startswith("("):
        return ""
    return signature if len(signature) <= _MAX_SIGNATURE else ""


def _plain(text: str) -> str:
    text = _ROLE.sub(r"\1", text)
    text = _TICKS.sub(lambda found: found[1] or found[2], text)
    return " ".join(_EMPHASIS.sub(r"\1", text).split())


def _first_paragraph(text: str, name: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    if lines and lines[0] == name:
        lines = lines[1:]
    lines = _without_signature(lines, name.rpartition(".")[2])
    paragraph: list[str] = []
    for line in lines:
        if not line or line.startswith(_NOT_PROSE):
            break
        paragraph.append(line)
    return " ".join(paragraph)


def _without_signature(lines: list[str], last: str) -> list[str]:
    """Lines after those that only repeat the call (``dumps(obj) -> str``), which C functions begin with."""
    call = re.compile(rf"(?:[\w.]*\.)?{re.escape(last)}\s*\(")
    for place, line in enumerate(lines):
        if not line:
            continue
        repeats = call.match(line) and (line.endswith((")", ":")) or "->" in line or " -- " in line)
        if not repeats:
            return lines[place:]
        if " -- " in line:
            return [line.split(" -- ", 1)[1], *lines[place + 1 :]]
        result = _RESULT_THEN_TEXT.search(line)
        if result:
            return [line[result.end() :], *lines[place + 1 :]]
    return []

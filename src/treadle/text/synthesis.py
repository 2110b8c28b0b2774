"""Synthetic examples: what a teacher is asked about documents and examples, and documents made of its answers.

- ``instructions``: questions that a document answers, with answers in its words.
- ``paraphrases``: an example's question (or text to classify) in other words; the answer (or label) stays.
- ``hard_negatives``: to classify, a text of one label in the words of another; in a chat, a wrong answer that looks
  right, as ``rejected`` beside the one that is.

Each document made has the origin ``synthetic``, the documents it was made from as ``parents``, and their license,
subject and limits. Parents on the side of a test are never asked about. What is wrong with an answer has a rule:
``synthesize.malformed``, ``surplus`` (more than was asked for), ``refused``, ``ungrounded`` (words that the document
does not have), ``unchanged`` (the words of the parent again).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document, document_id
from treadle.text.labeled_reply import Malformed, read_reply
from treadle.text.prompt_template import PromptTemplate
from treadle.text.words import words_of

SOURCE = "synthetic"
PREFIX = "synthesize."
MIN_WORDS = 20  # of a document that is asked about
Kind = Literal["instructions", "paraphrases", "hard_negatives"]
KINDS: tuple[Kind, ...] = ("instructions", "paraphrases", "hard_negatives")

# By kind and task: the template that ships, the labels of a reply, the places that a prompt needs.
_FORMS: dict[tuple[str, str], tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    ("instructions", "chat"): ("instructions", ("Question", "Answer"), ("document",)),
    ("paraphrases", "chat"): ("paraphrases-chat", ("Question",), ("text",)),
    ("paraphrases", "classify"): ("paraphrases-classify", ("Text",), ("text",)),
    ("hard_negatives", "chat"): ("hard-negatives-chat", ("Answer",), ("question", "answer")),
    ("hard_negatives", "classify"): ("hard-negatives-classify", ("Text",), ("text", "label", "other")),
}
MAY = ("count",)


@dataclass(frozen=True, slots=True)
class Form:
    """How a kind is asked for and read: the name of its template, the labels of a reply, the places it needs."""

    template: str
    labels: tuple[str, ...]
    needs: tuple[str, ...]


def form_of(kind: str, task: str) -> Form | None:
    """None where the task has no such examples."""
    found = _FORMS.get((kind, task))
    return Form(*found) if found else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many prompts of a kind at most, each for ``per`` examples. ``grounded``: share of an answer's words that its
    document must have; ``characters`` of a document that are shown."""

    kind: Kind
    count: int
    per: int
    template: PromptTemplate
    grounded: float = 0.0
    characters: int = 4000


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt: what it is about. ``heir`` is the document whose license, subject and limits pass on."""

    wanted: Wanted
    labels: tuple[str, ...]
    parents: tuple[str, ...]
    values: dict[str, str]
    heir: Document
    example: Example | None = None

    @property
    def messages(self) -> tuple[dict[str, Any], ...]:
        """What the teacher is sent."""
        return self.wanted.template.messages({**self.values, "count": str(self.wanted.per)})


@dataclass(frozen=True, slots=True)
class Material:
    """What may be asked about: documents by id, examples that are learned from, and the ids on a test's side."""

    documents: Mapping[str, Document]
    examples: Sequence[Example]
    tested: frozenset[str]


def plan(wanted: Wanted, task: str, material: Material, seed: int) -> list[Asked]:
    """The prompts of a kind: as many as there can be up to ``count``, drawn by a digest of seed and parent."""
    form = form_of(wanted.kind, task)
    assert form is not None
    if wanted.kind == "instructions":
        asked = list(_about_documents(wanted, form, material))
    else:
        asked = list(_about_examples(wanted, form, material, task))
    asked = list({(each.parents, *each.values.values()): each for each in asked}.values())
    drawn = {each.parents: blake3_bytes(canonical_json([seed, wanted.kind, list(each.parents)])) for each in asked}
    return sorted(asked, key=lambda each: (drawn[each.parents], each.parents))[: wanted.count]


def _about_documents(wanted: Wanted, form: Form, material: Material) -> Iterator[Asked]:
    for document in material.documents.values():
        if document.id in material.tested or "messages" in document.fields:
            continue
        text = _beginning(document.text.strip(), wanted.characters)
        if len(words_of(text)) >= MIN_WORDS:
            yield Asked(wanted, form.labels, (document.id,), {"document": text}, document)


def _about_examples(wanted: Wanted, form: Form, material: Material, task: str) -> Iterator[Asked]:
    near = _nearest_labels(material.examples) if task == "classify" and wanted.kind == "hard_negatives" else {}
    for example in material.examples:
        heir = material.documents.get(example.documents[0])
        if heir is None or material.tested.intersection(example.documents):
            continue
        values = _values(example, near)
        if values is not None and all(values.get(name, "").strip() for name in form.needs):
            yield Asked(wanted, form.labels, example.documents, values, heir, example)


def _values(example: Example, near: Mapping[str, str]) -> dict[str, str] | None:
    """What of an example a prompt may show; None where its end is no question and plain answer."""
    if not example.messages:
        return {"text": example.text, "label": example.label or "", "other": near.get(example.id, "")}
    if len(example.messages) < 2 or example.messages[-2]["role"] != "user":
        return None
    asked, told = example.messages[-2], example.messages[-1]
    if told["role"] != "assistant" or told.get("tool_calls"):
        return None
    return {"text": asked["content"], "question": asked["content"], "answer": told["content"]}


def _nearest_labels(examples: Sequence[Example]) -> dict[str, str]:
    """By example: the other label whose texts have most of its words."""
    texts: Counter[str] = Counter()
    having: dict[str, Counter[str]] = {}
    words = {example.id: set(words_of(example.text)) for example in examples}
    for example in examples:
        label = example.label or ""
        texts[label] += 1
        having.setdefault(label, Counter()).update(words[example.id])
    found = {}
    for example in examples:
        others = [label for label in sorted(texts) if label != example.label]
        if others:
            near = {each: sum(having[each][word] for word in words[example.id]) / texts[each] for each in others}
            found[example.id] = max(others, key=lambda label: near[label])
    return found


def read_answer(
    asked: Asked, text: str, *, cut: bool, refused: str, made_by: Mapping[str, Any]
) -> Iterator[Document | Dropped]:
    """Documents made of a teacher's answer, and the pieces of it that are none, each by a rule. ``made_by`` is kept
    with each document: teacher, prompt, template."""
    if refused:
        yield Dropped(_document(asked, 0, "", {}, made_by), f"{PREFIX}refused", refused)
        return
    kept = 0
    for place, piece in enumerate(read_reply(text, asked.labels, cut=cut)):
        if isinstance(piece, Malformed):
            yield Dropped(_document(asked, place, piece.text, {}, made_by), f"{PREFIX}malformed", piece.reason)
            continue
        said, fields = _content(asked, piece)
        document = _document(asked, place, said, fields, made_by)
        rule, reason = _wrong(asked, piece)
        if not rule and kept >= asked.wanted.per:
            rule, reason = "surplus", f"{asked.wanted.per} were asked for"
        if rule:
            yield Dropped(document, f"{PREFIX}{rule}", reason)
        else:
            kept += 1
            yield document


def _content(asked: Asked, record: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Text and fields of the document that a record becomes."""
    example = asked.example
    if example is None:
        messages = [_message("user", record[0]), _message("assistant", record[1])]
        return "\n".join(record), {"messages": messages}
    if not example.messages:
        return record[0], {"label": example.label}
    before, (asker, told) = [dict(each) for each in example.messages[:-2]], example.messages[-2:]
    fields: dict[str, Any] = {"tools": list(example.tools)} if example.tools else {}
    if asked.wanted.kind == "hard_negatives":
        rejected = [*before, dict(asker), _message("assistant", record[0])]
        fields |= {"messages": [*before, dict(asker), dict(told)], "rejected": rejected}
        return f"{asker['content']}\n{record[0]}", fields
    fields["messages"] = [*before, _message("user", record[0]), dict(told)]
    return f"{record[0]}\n{told['content']}", fields


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _wrong(asked: Asked, record: tuple[str, ...]) -> tuple[str, str]:
    """The rule that a record breaks, and why; two empty texts where it breaks none."""
    if asked.wanted.kind == "instructions":
        known = set(words_of(asked.values["document"]))
        words = set(words_of(record[1]))
        share = len(words & known) / len(words) if words else 0.0
        if share < asked.wanted.grounded:
            return "ungrounded", f"{share:.0%} of the answer's words stand in the document, fewer than asked for"
        return "", ""
    parent = asked.values["answer" if asked.labels == ("Answer",) else "text"]
    return ("unchanged", "the words of what it was made from") if words_of(record[0]) == words_of(parent) else ("", "")


def _document(asked: Asked, place: int, text: str, fields: Mapping[str, Any], made_by: Mapping[str, Any]) -> Document:
    heir, kind = asked.heir, asked.wanted.kind
    locator = f"{kind} of {heir.id[:16]}, {place + 1}"
    about = {**made_by, "kind": kind}
    raw = canonical_json([list(asked.parents), text, dict(fields), about])
    return Document(
        id=document_id(SOURCE, locator, raw),
        source=SOURCE,
        locator=locator,
        text=text,
        license=heir.license,
        origin="synthetic",
        parents=asked.parents,
        purpose=heir.purpose,
        subject=heir.subject,
        retain_until=heir.retain_until,
        opt_out=heir.opt_out,
        fields={**fields, "synthetic": about},
    )


def example_of(document: Document, group: str) -> Example:
    """The example that a synthetic document is; its documents are itself, then its parents, whose group it is in."""
    fields = document.fields
    about: dict[str, Any] = {"origin": "synthetic", "kind": fields["synthetic"]["kind"], "locator": document.locator}
    if "rejected" in fields:
        about["rejected"] = fields["rejected"]
    return Example(
        (document.id, *document.parents),
        messages=tuple(dict(each) for each in fields.get("messages", ())),
        text="" if "messages" in fields else document.text,
        label=None if "messages" in fields else str(fields["label"]),
        group=group,
        fields=about,
        tools=tuple(fields.get("tools", ())),
    )


def with_rejected(examples: Iterable[Example], negatives: Iterable[Example]) -> tuple[list[Example], set[str]]:
    """The examples, each with the first wrong answer made to it as ``rejected`` among its fields, and made of the
    document that says it as well; and the ids of the documents that were used so."""
    known = {(each.documents[1:], each.question): each for each in reversed(list(negatives))}
    found, used = [], set[str]()
    for example in examples:
        negative = None if "rejected" in example.fields else known.get((example.documents, example.question))
        if negative is not None and negative.messages == example.messages and negative.documents[0] not in used:
            used.add(negative.documents[0])
            documents = (*example.documents, negative.documents[0])
            fields = {**example.fields, "rejected": negative.fields["rejected"]}
            found.append(dataclasses.replace(example, documents=documents, fields=fields))
        else:
            found.append(example)
    return found, used


def _beginning(text: str, characters: int) -> str:
    """So much of a text, up to the end of a word."""
    if len(text) <= characters:
        return text
    return text[:characters].rsplit(None, 1)[0]

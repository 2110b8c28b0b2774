"""What is found, what is left alone, and that redacting is complete. Figures on the labelled sets are lower bounds."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.text.accounting import Note
from treadle.text.document import Document
from treadle.text.personal_data import KINDS, find, mask, redact
from treadle.text.redact import Redact

FOUND = [
    ("email", "write to |jane.doe+x@mail.example.co.uk|."),
    ("email", "<|o'neil@mail.test|>"),
    ("email", "an |müller@büro.de| too"),
    ("url_credentials", "git clone https://|bob:s3cret@host|"),
    ("iban", "IBAN |GB82 WEST 1234 5698 7654 32| OR other"),
    ("iban", "|DE89370400440532013000|"),
    ("credit_card", "pay |4111 1111 1111 1111| now"),
    ("credit_card", "|378282246310005|"),
    ("crypto_wallet", "to |1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa| please"),
    ("crypto_wallet", "to |bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4|"),
    ("mac", "device |00:1A:2b:3C:4d:5E| is on"),
    ("us_ssn", "his |536-22-1234|"),
    ("us_ssn", "SSN: |536 22 1234|"),
    ("ip", "from |8.8.4.4| and"),
    ("ip", "|2001:db8:85a3::8a2e:370:7334|"),
    ("date_of_birth", "born on |12 March 1980| in"),
    ("date_of_birth", "DOB: |1980-03-12|"),
    ("date_of_birth", "geboren am |12.03.1980|"),
    ("passport", "passport no. |C01234567|"),
    ("driver_license", "driver's license |D1234567|"),
    ("credit_card", "12 |4111-1111-1111-1111| 08 27"),
    ("phone", "|+49 151 23456789| 378282246310"),
    ("phone", "12345678901 |(212) 555-0123|"),
    ("phone", "|212.555.0123 x42|"),
    ("phone", "+49 151 23456789"),
    ("phone", "(212) 555-0123"),
    ("phone", "call |0151 234567|"),
    ("phone", "Tel: |030 1234-567|"),
]
LEFT = [
    "version 1.2.3.4",
    "127.0.0.1 and 0.0.0.0 and ::1",
    "a[1::2] and std::vector and 12:30:45",
    "the number 4111111111111112",
    "order 1234567890123456",
    "GB82 WEST 1234 5698 7654 33",
    "on 2024-05-01 12:30 and 01.02.2024",
    "pi is 3.14159265358979 and 1234567.890123",
    "000-12-3456 and 666-12-3456 and 912-12-3456",
    "user@localhost, @decorator, a @ b.com",
    "https://example.com/a:b@c",
    "range 100-200-300",
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
    "UUID 123e4567-e89b-12d3-a456-426614174000",
    "sha256 00:11:22:33:44:55:66:77",
]


@pytest.mark.parametrize(("kind", "marked"), FOUND)
def test_found_where_it_is(kind: str, marked: str) -> None:
    before, _, rest = marked.partition("|")
    inner, _, _ = rest.partition("|")
    text = marked.replace("|", "")
    start, end = (0, len(text)) if not rest else (len(before), len(before) + len(inner))
    if kind == "url_credentials":
        end -= len("@host")
    findings = [(finding.kind, finding.start, finding.end) for finding in find(text)]
    assert findings == [(kind, start, end)]


@pytest.mark.parametrize("text", LEFT)
def test_look_alikes_are_left(text: str) -> None:
    assert find(text) == []


def test_every_kind_has_an_example() -> None:
    assert {kind for kind, _ in FOUND} == set(KINDS)


@given(
    st.text(max_size=80),
    st.lists(st.sampled_from([text.replace("|", "") for _, text in FOUND] + LEFT), max_size=4),
    st.text(max_size=20),
)
def test_findings_are_apart_and_redacting_is_complete(before: str, parts: list[str], between: str) -> None:
    text = before + f" {between} ".join(parts)
    findings = find(text)
    assert all(one.end <= two.start for one, two in pairwise(findings))
    assert all(0 <= one.start < one.end <= len(text) for one in findings)
    once = mask(text)
    assert mask(once) == once


def test_only_the_kinds_asked_for() -> None:
    text = "a.b@mail.test, +49 151 23456789"
    assert redact(text, ["email"]) == "[EMAIL], +49 151 23456789"
    assert redact(text, ["phone"]) == "a.b@mail.test, [PHONE]"
    assert redact(text, []) == text


def test_the_transform_redacts_fields_and_notes_counts() -> None:
    made = Document(
        "doc:1", "t", "1", "a.b@mail.test", fields={"messages": [{"role": "user", "content": "c.d@mail.test"}]}
    )
    result, *notes = Redact(kinds=["email"])([made])
    assert getattr(result, "text", None) == "[EMAIL]"
    assert "mail.test" not in repr(result)
    assert notes == [Note("redact.documents", 1, ("doc:1",)), Note("redact.email", 2, ("doc:1",))]


LABELS = {
    "CREDIT_CARD": "credit_card",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "US_SSN": "us_ssn",
    "IP_ADDRESS": "ip",
    "EMAIL_ADDRESS": "email",
}


def labelled(shared_data: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(shared_data / "5-pii" / "presidio_synth_dataset_v2.json.gz") as file:
        yield from json.load(file)
    with gzip.open(shared_data / "5-pii" / "presidio_generated_seen_templates.jsonl.gz") as file:
        yield from map(json.loads, file)


def test_recall_and_precision_on_labelled_texts(shared_data: Path) -> None:
    right: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    given_back: Counter[str] = Counter()
    for item in labelled(shared_data):
        findings = [finding for finding in find(item["full_text"]) if finding.kind in LABELS.values()]
        given_back.update(finding.kind for finding in findings)
        for span in item["spans"]:
            kind = LABELS.get(span["entity_type"])
            if kind:
                wanted[kind] += 1
                right[kind] += any(
                    one.kind == kind and one.start <= span["start_position"] + 1 and one.end >= span["end_position"]
                    for one in findings
                )
    assert min(right[kind] / wanted[kind] for kind in wanted) >= 0.97
    assert min(right[kind] / given_back[kind] for kind in wanted) >= 0.97
    assert sum(right.values()) >= 0.99 * sum(wanted.values())

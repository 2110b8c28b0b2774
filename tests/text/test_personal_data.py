"""What is found, what is left alone, and that redacting is complete. Figures on the labelled sets are lower bounds."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.address_cases import ADDRESSES, NEAR_MISSES
from treadle.core.errors import UserError
from treadle.core.executors import Pool
from treadle.text.accounting import Accounting, Dropped, Note, Touched
from treadle.text.detectors import DETECTORS, RULES
from treadle.text.document import Document
from treadle.text.findings import FindingsFile, mentioning, read_findings
from treadle.text.mentions import mention, mentions_in, mentions_of
from treadle.text.personal_data import KINDS, Scanner, find, mask, redact, sample
from treadle.text.pseudonyms import Pseudonyms
from treadle.text.redact import Redact
from treadle.text.transform import TransformContext, load_transforms, run_transforms

KEY = b"k" * 32
CHECKED = {"credit_card", "iban", "crypto_wallet", "us_ssn"}

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
    ("api_key", "key |ghp_" + "a1" * 18 + "| is old"),
    ("national_id", "DNI |12345678Z|"),
    ("national_id", "NIE |X1234567L|"),
    ("national_id", "Steuer-ID |86095742719|"),
    ("national_id", "|AB 12 34 56 C|"),
    ("national_id", "codice |RSSMRA85T10A562S|"),
    ("national_id", "NIR |2 55 08 14 168 025 38|"),
    ("national_id", "PESEL |44051401359|"),
    ("national_id", "BSN |111222333|"),
    ("national_id", "|85.07.30-033.28|"),
    ("national_id", "SIN |130 692 544|"),
    ("national_id", "CPF |111.444.777-35|"),
    ("medical_id", "MRN: |A-1234567|"),
    ("medical_id", "NHS number |943 476 5919|"),
    ("medical_id", "|1EG4-TE5-MK73|"),
    ("medical_id", "NPI |1234567893|"),
    ("medical_id", "Versichertennummer |A123456780|"),
    ("account", "account number |123456789012|"),
    ("vehicle_id", "|1HGCM82633A004352|"),
    ("vehicle_id", "Fahrgestellnummer |WVWZZZ1JZXW000001|"),
    ("address", "at |12 North Main Street| today"),
    ("address", "wohnt |Musterstraße 12|"),
    ("address", "au |12 rue de Rivoli|"),
    ("address", "en |Calle Mayor 5|"),
    ("address", "in |Via Roma 12|"),
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
    "12345678A and X1234567A",
    "Steuer-ID 86095742718",
    "Versichertennummer A123456781",
    "111.444.777-36 and 85.07.30-033.29",
    "1HGCM82633A004353",
    "86095742719 and 44051401359 and 111222333 alone",
    "sk-learn and eyJust and hf_model",
    "3 in a row, Main Street",
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


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("kind", "marked"), FOUND)
def test_json_in_a_text_is_read_as_what_it_stands_for(kind: str, marked: str, times: int) -> None:
    inner = marked.split("|")[1] if "|" in marked else marked
    text = marked.replace("|", "").replace("@host", "@" + "host")
    inside: object = f"line\n{text}\n\u00fc"
    for _ in range(times):
        inside = json.dumps({"a": inside})
    text = str(inside)
    assert kind in {found.kind for found in find(text)}
    shown: object = redact(text)
    assert inner.removesuffix("@host") not in str(shown)
    for _ in range(times):
        shown = json.loads(str(shown))["a"]
    assert f"[{kind.upper()}]" in str(shown)


def test_a_value_written_with_escapes_is_the_same_person() -> None:
    text = r'{"to": "c.d\u0040mail.test", "tel": "+49\u002030\/1234567"}'
    for name in ("c.d@mail.test", "+49 30 1234567"):
        assert set(mentions_in(KEY, text)) >= mentions_of(KEY, name) != set()
    loaded = load_transforms([{"redact": {"action": "replace"}}], None, key=KEY)
    made = [Document("doc:1", "t", "1", text), Document("doc:2", "t", "2", "c.d@mail.test")]
    [[escaped, plain]] = list(run_transforms([made], loaded, Accounting()))
    assert json.loads(escaped.text)["to"] == plain.text
    assert "1234567" not in escaped.text


SET = [
    ("+49\u00a0170\u202f123\u20114567", "[PHONE]"),
    ("(+49) 170 1234567", "[PHONE]"),
    ("\uff0b\uff14\uff19 \uff11\uff17\uff10 \uff11\uff12\uff13\uff14\uff15\uff16\uff17", "[PHONE]"),
    ("4111\u00a01111\u00a01111\u00a01111", "[CREDIT_CARD]"),
    ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "[IBAN]"),
    ("ssn 219\u201109\u20119999", "ssn [US_SSN]"),
    ("call me: 555\u2013123\u20134567", "call me: [PHONE]"),
    ("c.d\uff20mail.test", "[EMAIL]"),
    ("c.d@ma\u200bil.test, it\u00ads", "[EMAIL], it\u00ads"),
    ("?to=c.d%40mail.test&tel=%2B49%20170%201234567", "?to=[EMAIL]&tel=[PHONE]"),
    ("c.d&#64;mail&period;test or c.d&#x40;mail.test", "[EMAIL] or [EMAIL]"),
    ("from ::ffff:8.8.4.4 on", "from [IP] on"),
]


@pytest.mark.parametrize(("text", "shown"), SET)
def test_how_it_is_set_makes_no_difference(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(f"caf\u00e9 \u2013 {text}") == f"caf\u00e9 \u2013 {shown}"


@pytest.mark.parametrize("text", ["2010\u20132015", "pp. 123\u2013456", "100% of 20%", "R&D; &#10;", "\u200b\u00ad"])
def test_typography_alone_is_left(text: str) -> None:
    assert redact(text) == text


def test_names_of_fields_are_texts_too() -> None:
    people = {"c.d@mail.test": "friend", "e.f@mail.test": "boss", "[EMAIL]": "a word", "plain": 1}
    [result, *_] = Redact(kinds=["email"])([Document("doc:1", "t", "1", "", fields={"contacts": people})])
    assert isinstance(result, Document)
    assert sorted(map(str, result.fields["contacts"].values())) == ["1", "a word", "boss", "friend"]
    assert "mail.test" not in repr(result)


def test_backslashes_without_json_are_left() -> None:
    for text in (r"C:\new\4111111111111111x", r"$\rho$ and \beta", r'say "\q49 170"'):
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
    result, touched, *notes = Redact(kinds=["email"])([made])
    assert getattr(result, "text", None) == "[EMAIL]"
    assert "mail.test" not in repr(result)
    assert isinstance(touched, Touched)
    assert (touched.document, touched.rule, touched.count) == ("doc:1", "redact.email", 2)
    assert notes == [Note("redact.documents", 1, ("doc:1",)), Note("redact.email", 2)]


SAME = [
    ("email", "Jane.Doe@mail.test", "jane.doe@MAIL.test"),
    ("phone", "+49 30 1234567", "030/123-4567"),
    ("phone", "(212) 555-0123", "+1 212.555.0123 x42"),
    ("ip", "2a00:1450:4001:81b::200e", "2A00:1450:4001:081B:0:0:0:200E"),
    ("iban", "GB82 WEST 1234 5698 7654 32", "gb82west12345698765432"),
    ("credit_card", "4111 1111 1111 1111", "4111-1111-1111-1111"),
]


@pytest.mark.parametrize(("kind", "one", "other"), SAME)
def test_spellings_of_one_value_are_one(kind: str, one: str, other: str) -> None:
    digest = mention(KEY, kind, one)
    assert digest is not None
    assert digest == mention(KEY, kind, other)
    assert digest != mention(bytes(32), kind, one)
    assert digest != mention(KEY, kind, one[:-1] + "9")


@pytest.mark.parametrize(("kind", "marked"), FOUND)
def test_a_pseudonym_is_of_its_shape_and_nobodys(kind: str, marked: str) -> None:
    text = marked.replace("|", "")
    made = next(iter(Redact(action="replace", context=TransformContext(key=KEY))([Document("doc:1", "t", "1", text)])))
    assert isinstance(made, Document)
    (finding,) = find(text)
    value, rest = text[finding.start : finding.end], len(text) - finding.end
    stand_in = made.text[finding.start : len(made.text) - rest]
    assert stand_in != value
    assert value not in made.text
    assert stand_in == Pseudonyms(KEY)(kind, value) != Pseudonyms(bytes(32))(kind, value)
    if kind in CHECKED:
        assert [each.kind for each in find(made.text) if each.kind == kind] == []
    if kind == "email":
        assert stand_in.endswith("@example.com")


def test_each_kind_has_its_action() -> None:
    made = [
        Document("doc:1", "t", "1", "a.b@mail.test and (212) 555-0123"),
        Document("doc:2", "t", "2", "SSN 536-22-1234 of c.d@mail.test"),
        Document("doc:3", "t", "3", "nothing"),
    ]
    transform = Redact(
        kinds={"email": "replace", "phone": "redact", "us_ssn": "drop"}, context=TransformContext(key=KEY)
    )
    pieces = list(transform(made))
    first, third = (piece for piece in pieces if isinstance(piece, Document))
    assert first.text == f"{Pseudonyms(KEY)('email', 'a.b@mail.test')} and [PHONE]"
    assert third is made[2]
    assert [(piece.document.id, piece.rule) for piece in pieces if isinstance(piece, Dropped)] == [
        ("doc:2", "redact.drop_us_ssn")
    ]
    with pytest.raises(UserError, match="key of a project"):
        Redact(action="replace")
    nothings: tuple[Any, ...] = ([], {})
    for nothing in nothings:
        with pytest.raises(UserError, match="redact: kinds lists nothing; leave it out for all kinds"):
            Redact(kinds=nothing)


def test_an_erasure_finds_a_document_that_was_dropped(tmp_path: Path) -> None:
    made = [Document("doc:1", "t", "1", "SSN 536-22-1234 of c.d@mail.test"), Document("doc:2", "t", "2", "nothing")]
    loaded = load_transforms([{"redact": {"kinds": {"email": "redact", "us_ssn": "drop"}}}], None, key=KEY)
    with FindingsFile(tmp_path) as findings:
        assert [len(each) for each in run_transforms([made], loaded, Accounting(), touched=findings.add)] == [1]
    assert [(row.document, row.rule) for row in read_findings(tmp_path)] == [
        ("doc:1", "redact.email"), ("doc:1", "redact.us_ssn")
    ]  # fmt: skip
    for name in ("C.D@mail.test", "536-22-1234"):
        assert mentioning(tmp_path, mentions_of(KEY, name)) == {"doc:1"}


def test_how_well_addresses_are_told() -> None:
    """Precision and recall over sentences that were labeled by hand; what the documentation says comes from here."""
    scanner = Scanner(("address",))
    right = missed = wrong = 0
    for marked in (each for cases in ADDRESSES.values() for each in cases):
        address, text = marked.split("|")[1], marked.replace("|", "")
        found = [text[each.start : each.end].rstrip(".") for each in scanner.find(text)]
        right, missed = right + (address in found), missed + (address not in found)
        wrong += len([each for each in found if each != address])
    wrong += sum(len(scanner.find(text)) for cases in NEAR_MISSES.values() for text in cases)
    precision, recall = right / (right + wrong), right / (right + missed)
    sys.stdout.write(f"addresses: {right} found, {missed} missed, {wrong} wrong: {precision=:.3f} {recall=:.3f}\n")
    assert (right + missed, sum(map(len, NEAR_MISSES.values()))) == (40, 60)
    assert (precision, recall) == (1.0, 0.95)


@pytest.mark.parametrize(
    "text",
    ["Copyright: 1991-1997, Thomas G. Lane", "2008, Sebastian Dr\u00f6ge", "2016 Iain Lane <iain@host.test>",
     "\u00a9 2014 Mary Lane", "1999, 2004 John Way"],
)  # fmt: skip
def test_years_before_names_are_no_addresses(text: str) -> None:
    assert Scanner(("address",)).find(text) == []


def test_words_count_in_their_languages_and_within_reach() -> None:
    german = Scanner(("phone",), languages=("de",))
    assert german.find("Rufnummer 0151 234567")
    assert not german.find("call 0151 234567")
    assert not Scanner(("phone",), window=4).find("call me on 0151 234567")
    with pytest.raises(UserError, match="no context words"):
        Scanner(languages=("tlh",))


def test_samples_show_no_value_and_no_name() -> None:
    for kind, marked in FOUND:
        before, inner, after = ("", marked, "") if "|" not in marked else marked.split("|")
        shown = sample(f"Ask Jane Doe about {before}{inner}{after}", kind)
        assert f"[{kind.upper()}]" in shown
        assert inner not in shown
        assert "Jane" not in shown


def test_findings_are_kept_by_document_and_mention(tmp_path: Path) -> None:
    rows = [
        Touched("doc:1", "redact.email", 2, (str(mention(KEY, "email", "a.b@mail.test")),)),
        Touched("doc:2", "redact.phone"),
    ]
    with FindingsFile(tmp_path) as file:
        for row in rows:
            file.add(row)
    assert list(read_findings(tmp_path)) == rows
    assert mentioning(tmp_path, mentions_of(KEY, "A.B@mail.test")) == {"doc:1"}
    assert mentioning(tmp_path, mentions_of(KEY, "Jane Doe")) == set()
    assert list(read_findings(tmp_path / "absent")) == []


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


def test_the_page_names_every_rule_with_its_source() -> None:
    page = (Path(__file__).parents[2] / "docs" / "stages" / "prepare.md").read_text()
    for kind, rule in RULES.items():
        assert f"| `{kind}` | {rule.finds} | {rule.check} | {rule.source} |" in page
    assert {detector.kind for detector in DETECTORS} == set(KINDS)


def test_a_pool_keeps_the_same_findings_and_pseudonyms() -> None:
    made = [Document(f"doc:{n}", "t", str(n), f"person{n % 7}@mail.test and {n}") for n in range(1200)]
    steps: list[Any] = [{"redact": {"kinds": {"email": "replace"}}}]
    results = []
    for mapped in (map, Pool(workers=2).map):
        accounting, touched = Accounting(), list[Touched]()
        loaded = load_transforms(steps, None, key=KEY)
        shards = list(run_transforms([made], loaded, accounting, mapped, touched.append))
        results.append((shards, touched, accounting.close().to_json()))
    assert results[0] == results[1]
    assert len({document.text.partition(" ")[0] for shard in results[0][0] for document in shard}) == 7
    assert len(results[0][1]) == 1200
    assert len(results[0][2]["samples"]["redact.email"]) == 5

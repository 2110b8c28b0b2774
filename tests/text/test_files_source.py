"""Rows and texts from files become documents; what does not is quarantined with its place."""

# ruff: noqa: RUF001 (texts in many languages)

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from treadle.core.errors import UserError
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source, read_sources

Collect = Callable[..., tuple[list[Document], Accounting]]
Keyed = Callable[[str], str]


def write_rows(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_review_with_label_time_and_subject(tmp_path: Path, collect: Collect, keyed: Keyed) -> None:
    row = {
        "review": "Good tea",
        "sentiment": 1,
        "created_at": "2024-05-01T10:00:00+02:00",
        "customer_id": "Jane Doe",
        "language": "en",
    }
    write_rows(tmp_path / "reviews.jsonl", row)
    fields = {"text": "review", "label": "sentiment", "time": "created_at", "subject": "customer_id"}
    (document,), accounting = collect(path="reviews.jsonl", license="CC0-1.0", personal_data=True, fields=fields)
    assert document.text == "Good tea"
    assert document.time == "2024-05-01T08:00:00Z"
    assert document.subject == keyed("Jane Doe")
    assert document.fields == {"sentiment": 1, "label": "1", "language": "en", "customer_id": keyed("Jane Doe")}
    assert (document.locator, document.license, document.source) == ("reviews.jsonl:1", "CC0-1.0", "files")
    assert "Jane" not in repr(document)
    assert accounting.kept == 1


def test_ids_are_the_same_again_and_follow_the_bytes(tmp_path: Path, collect: Collect) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two"})
    first, _ = collect(path="a.jsonl")
    again, _ = collect(path="*.jsonl")
    assert [document.id for document in first] == [document.id for document in again]
    write_rows(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two!"})
    changed, _ = collect(path="a.jsonl")
    assert changed[0].id == first[0].id
    assert changed[1].id != first[1].id


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_each_kind_gives_the_same_texts(tmp_path: Path, collect: Collect, kind: str, suffix: str) -> None:
    texts = ["first", 'a "quoted, text\nover lines', "Ünïcode 漢字"]
    rows = [{"text": text, "n": str(n)} for n, text in enumerate(texts)]
    if kind == "parquet":
        if suffix:
            pytest.skip("Parquet packs itself")
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    else:
        import csv

        out = io.StringIO(newline="")
        if kind in ("csv", "tsv"):
            csv.writer(out, delimiter="\t" if kind == "tsv" else ",").writerows(
                [["text", "n"], *(row.values() for row in rows)]
            )
        elif kind == "json":
            json.dump(rows, out, indent=1)
        else:
            out.write("".join(json.dumps(row) + "\n" for row in rows))
        data = out.getvalue().encode()
        (tmp_path / f"a.{kind}{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    documents, accounting = collect(path=f"a.{kind}{suffix}")
    assert [document.text for document in documents] == texts
    assert [document.fields for document in documents] == [{"n": str(n)} for n in range(3)]
    assert not accounting.quarantined


def test_texts_are_whole_files_in_whatever_encoding(tmp_path: Path, collect: Collect) -> None:
    german = "Die Größe der Änderung überraschte viele Bürger in München, Köln und Düsseldorf sehr. " * 5
    (tmp_path / "a.md").write_text("# Title\n\nText", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(german.encode("cp1252"))
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfwith a mark")
    (tmp_path / "d.txt").write_bytes(german.encode("utf-16"))
    documents, accounting = collect(path="*.*")
    assert [document.text for document in documents] == ["# Title\n\nText", german, "with a mark", german]
    assert documents[0].fields == {"format": "md"}
    assert "encoding" in documents[1].fields
    assert accounting.kept == 4


WRITTEN = {
    "cp1252": (
        "naïve café", "Ünü", "Größe", "Ça va bien, et toi ?", "SÃO PAULO", "1º andar", "£5 – “fine”", "ação",
        "Le garçon a été à l'école près de la forêt. Où êtes-vous allé hier ? Ça m'a coûté très cher.",
        "A situação econômica não é boa, mas há esperança. Amanhã vamos à praia com os irmãos. Lições de canções.",
        "På söndag går vi till fjället och åker skidor. Barnen äter glass på gården.",
        "La città è bellissima e fa caldo, però. Perché non andiamo al mare lunedì? C'è già più gente.",
        "El niño comió una manzana en el jardín. ¿Dónde está la estación? ¡Qué día más bonito!",
        "På søndag går vi på æblerov. Børnene løber rundt og råber højt. Hun købte brød og øl i København.",
        "Það er gott veður í dag. Ég á heima á Íslandi. Þú ert mjög góð við mig. Hún fæddist í Reykjavík.",
        "Ihmiset ovat täällä hyvin ystävällisiä, mutta minä en ymmärrä heitä. Hän on töissä yöllä.",
        "Die Maße: 5 m³ Wasser, 3 m² Fläche und 20° für Köln.",
    ),
    "cp1250": (
        "Zażółć gęślą jaźń. Dzień dobry, jak się masz? Wczoraj byłem w Krakowie i widziałem Wawel.",
        "Dobrý den, jak se máte? Včera jsem byl v Praze a viděl jsem Karlův most. Děti si hrají na hřišti.",
        "Jó napot kívánok, hogy van? Az erdőben sok őz él. A gyerekek az udvaron játszanak. Hűvös idő van.",
        "Jučer sam bio u Zagrebu i vidio katedralu. Djeca se igraju u dvorištu. Moj brat živi u Čakovcu.",
        "Ieri am fost în Bucureşti şi am văzut Ateneul. Copiii se joacă în curte. Cât costă această carte?",
    ),
    "iso8859-2": (
        "Dzień dobry, jak się masz? Wczoraj byłem w Krakowie i widziałem Wawel. Źle się czuję, ale cieszę się na lato.",
        "Dobrý den, jak se máte? Včera jsem byl v Praze a viděl jsem Karlův most. Těším se na léto, ale je zima.",
    ),
    "cp1254": ("Dün İstanbul'daydım ve Ayasofya'yı gördüm. Çocuklar bahçede oynuyor. Bu kitap ne kadar?",),
    "cp1257": ("Vakar buvau Vilniuje ir mačiau Gedimino pilį. Vaikai žaidžia kieme. Nežinau, kur yra stotis.",),
    "mac-roman": ("Le garçon a été à l'école près de la forêt. Les élèves étaient là et le maître est arrivé.",),
    "cp1251": ("Все люди рождаются свободными и равными в своем достоинстве и правах.", "Вчера шёл дождь, а я гулял."),
    "koi8-r": ("Все люди рождаются свободными и равными в своем достоинстве и правах. " * 3,),
    "cp1253": ("Καλημέρα, τι κάνετε; Χθες ήμουν στην Αθήνα και είδα την Ακρόπολη. Τα παιδιά παίζουν στην αυλή.",),
    "shift_jis": ("すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",),
    "euc-jp": ("すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。" * 4,),
    "gb18030": ("人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",),
    "big5": ("人人生而自由,在尊嚴和權利上一律平等。他們賦有理性和良心,並應以兄弟關係的精神相對待。",),
    "euc-kr": ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",),
}  # fmt: skip


@pytest.mark.parametrize("encoding", WRITTEN)
def test_what_languages_were_written_in_is_told_by_their_texts(tmp_path: Path, collect: Collect, encoding: str) -> None:
    for place, text in enumerate(WRITTEN[encoding]):
        (tmp_path / f"{place:02}.txt").write_bytes(text.encode(encoding))
        (tmp_path / f"{place:02}long.txt").write_bytes("\n".join([text] * 30).encode(encoding))
    documents, _ = collect(path="*.txt")
    found = {document.locator: document.text for document in documents}
    expected = {f"{place:02}.txt": text for place, text in enumerate(WRITTEN[encoding])}
    expected |= {f"{place:02}long.txt": "\n".join([text] * 30) for place, text in enumerate(WRITTEN[encoding])}
    assert found == expected


def test_bad_rows_are_told_and_the_rest_is_kept(tmp_path: Path, collect: Collect) -> None:
    good = b'{"text": "fine"}\n'
    bad = [
        b"{broken\n",
        b'{"text": 5}\n',
        b'{"text": " "}\n',
        b'{"other": "x"}\n',
        b"[1]\n",
        b'{"text": "\xff"}\n',
        b'{"text": "\\udc00"}\n',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"".join(good + line for line in bad))
    documents, accounting = collect(path="a.jsonl")
    assert len(documents) == len(accounting.quarantined) == len(bad)
    offsets = [sum(len(good) + len(line) for line in bad[:place]) + len(good) for place in range(len(bad))]
    assert [piece.offset for piece in accounting.quarantined] == offsets
    assert {piece.source for piece in accounting.quarantined} == {"files:a.jsonl"}
    assert all(piece.reason.startswith(f"line {2 * n + 2}: ") for n, piece in enumerate(accounting.quarantined))


def test_a_truncated_gzip_keeps_what_came_before(tmp_path: Path, collect: Collect) -> None:
    source = random.Random(5)
    lines = [json.dumps({"text": f"row {source.random()} {n}"}) + "\n" for n in range(20_000)]
    whole = gzip.compress("".join(lines).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    documents, accounting = collect(path="a.jsonl.gz")
    unpacked = zlib.decompressobj(wbits=31).decompress(whole[: len(whole) // 2])
    assert len(documents) == unpacked.count(b"\n") > 5_000
    (piece,) = accounting.quarantined
    assert piece.reason == "the rest cannot be read: the gzip stream ends too early"
    assert abs(piece.offset - sum(map(len, lines[: len(documents)]))) <= 8192


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_all_rows_before_a_break_are_kept(tmp_path: Path, collect: Collect, kind: str, packing: str) -> None:
    """Rubbish after the end costs none of them."""
    source = random.Random(5)
    texts = [f"row {source.random()} {n}" for n in range(6_000)]
    lines = [json.dumps({"text": text}) if kind != "csv" else text for text in texts]
    begin, between = {"jsonl": ("", "\n"), "json": ("[", ",\n"), "csv": ("text\n", "\n")}[kind]
    data = (begin + between.join(lines) + ("]" if kind == "json" else "\n")).encode()
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}[packing]
    (tmp_path / f"a.{kind}.{packing}").write_bytes(pack(data) + b"GARBAGE")
    documents, accounting = collect(path=f"a.{kind}.{packing}")
    assert [document.text for document in documents] == texts
    assert "the rest cannot be read" in accounting.quarantined[-1].reason


def test_columns_of_one_name_are_told(tmp_path: Path, collect: Collect) -> None:
    table = pa.table([["first"], ["second"]], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    documents, accounting = collect(path="a.parquet")
    assert not documents
    assert [piece.reason for piece in accounting.quarantined] == [
        "more than one column is called 'text'; rename all but one"
    ]


def test_a_bomb_is_not_unpacked(tmp_path: Path, collect: Collect) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'{"text": "first"}\n')
        for _ in range(200):
            file.write(b" " * 1_000_000 + b"\n")
    documents, accounting = collect(path="a.jsonl.gz")
    assert [document.text for document in documents] == ["first"]
    assert "unpacks to more than 300 times its size" in accounting.quarantined[-1].reason


def test_what_is_no_gzip_says_so(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"a,b\n1,2\n")
    documents, accounting = collect(path="a.csv.gz")
    assert not documents
    assert accounting.quarantined[0].reason == "the rest cannot be read: not a sound gzip stream"


def test_another_encoding_can_be_named(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "a.csv").write_bytes("text;n\nGrüße;1\n".encode("cp1252"))
    _, accounting = collect(path="a.csv", delimiter=";")
    assert "not utf-8 at byte 3; if it is another encoding, set `encoding`" in accounting.quarantined[0].reason
    documents, _ = collect(path="a.csv", delimiter=";", encoding="cp1252")
    assert documents[0].text == "Grüße"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "missing.jsonl"}, "nothing matches missing.jsonl"),
        ({"path": "a.jsonl", "ignore": "x"}, "ignore: input should be a valid"),
        ({"path": "a.jsonl", "licence": "MIT"}, "no setting 'licence'; did you mean 'license'"),
        ({"path": "a.jsonl", "fields": {"txt": "x"}}, "fields.txt"),
        ({"path": 5}, "path: input should be a valid string"),
        ({}, "path is missing"),
        ({"path": "a.jsonl", "encoding": "utf-9"}, "Python knows no encoding 'utf-9'"),
        ({"path": "a.jsonl", "fields": {"prompt": "x"}}, "only one of prompt and response"),
        ({"path": "a.jsonl", "fields": {"subject": "x", "id": "x"}}, "same column as subject and id"),
        ({"path": "a.jsonl", "max_row_bytes": "many"}, "max_row_bytes: input should be a valid integer"),
    ],
)
def test_mistakes_in_the_file_are_told(
    tmp_path: Path, collect: Collect, settings: dict[str, Any], message: str
) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "x"})
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(UserError, match=message) as caught:
        collect(**settings)
    assert "\n" not in str(caught.value)


def test_a_subject_that_is_not_there_makes_a_row_nobody_could_erase(
    tmp_path: Path, collect: Collect, keyed: Keyed
) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "x", "who": None}, {"text": "y", "who": 12})
    documents, accounting = collect(path="a.jsonl", fields={"text": "text", "subject": "who"})
    assert [document.subject for document in documents] == [keyed("12")]
    assert "no subject: column 'who' is missing or empty" in accounting.quarantined[0].reason


def test_the_same_row_through_two_sources_is_one_document(tmp_path: Path, keyed: Keyed) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "x"}, {"text": "y"})
    accounting = Accounting()
    context = SourceContext(tmp_path, keyed)
    sources = [open_source({"type": "files", "path": path}, context) for path in ("a.jsonl", "*.jsonl")]
    documents = [document for batch in read_sources(sources, accounting) for document in batch]
    assert len(documents) == 2
    assert accounting.close().dropped == {"collect.same_document": 2}


def test_a_fingerprint_follows_names_and_contents(tmp_path: Path, keyed: Keyed) -> None:
    def fingerprint() -> str:
        return open_source({"type": "files", "path": "**/*.jsonl"}, SourceContext(tmp_path, keyed)).fingerprint()

    write_rows(tmp_path / "a.jsonl", {"text": "x"})
    first = fingerprint()
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert fingerprint() == first
    write_rows(tmp_path / "a.jsonl", {"text": "y"})
    second = fingerprint()
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    assert len({first, second, fingerprint()}) == 3


def test_a_folder_is_all_of_it(tmp_path: Path, collect: Collect) -> None:
    folder = tmp_path / "in [it]" / "deep"
    folder.mkdir(parents=True)
    write_rows(folder / "a.jsonl", {"text": "x"})
    write_rows(folder.parent / "b.jsonl", {"text": "y"})
    write_rows(folder / ".hidden.jsonl", {"text": "z"})
    documents, _ = collect(path="in [it]")
    assert [document.locator for document in documents] == ["in [it]/b.jsonl:1", "in [it]/deep/a.jsonl:1"]


@pytest.mark.parametrize("path", ["data", "data/**/*.txt", "dat*/**", "data/*.txt"])
def test_a_link_into_its_own_folder_gives_no_file_twice(tmp_path: Path, collect: Collect, path: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("hi")
    (folder / "loop").symlink_to(".")
    (folder / "again").symlink_to(folder)
    documents, _ = collect(path=path)
    assert [document.locator for document in documents] == ["data/a.txt"]


@pytest.mark.parametrize("path", ["data", "data/**/*.txt", "data/*/*.txt"])
def test_a_folder_behind_links_is_read_once_and_where_it_lies(tmp_path: Path, collect: Collect, path: str) -> None:
    for folder in ("data/z", "elsewhere/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data" / "z" / "inside.txt").write_text("inside")
    (tmp_path / "elsewhere" / "outside.txt").write_text("outside")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to("../..")
    (tmp_path / "data" / "a").symlink_to("z")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    documents, _ = collect(path=path)
    assert [document.locator for document in documents] == ["data/b/outside.txt", "data/z/inside.txt"]


def test_what_is_no_file_is_told(tmp_path: Path, collect: Collect, keyed: Keyed) -> None:
    folder = tmp_path / "data"
    (folder / "empty").mkdir(parents=True)
    write_rows(folder / "a.jsonl", {"text": "x"})
    (folder / "b.jsonl").symlink_to("gone.jsonl")
    os.mkfifo(folder / "p.txt")
    source = open_source({"type": "files", "path": "data"}, SourceContext(tmp_path, keyed))
    before = source.fingerprint()
    documents, accounting = collect(path="data")
    assert [document.locator for document in documents] == ["data/a.jsonl:1"]
    assert {piece.source: piece.reason for piece in accounting.quarantined} == {
        "files:data/b.jsonl": "cannot be opened: a link to gone.jsonl, where nothing is; fetch it, or mount its disk",
        "files:data/p.txt": "cannot be opened: no regular file: a pipe, a socket or a device",
    }
    write_rows(folder / "gone.jsonl", {"text": "y"})
    assert source.fingerprint() != before


def test_reading_goes_on_after_a_cursor(tmp_path: Path, keyed: Keyed) -> None:
    for name in "abc":
        write_rows(tmp_path / f"{name}.jsonl", {"text": name})
    source = open_source({"type": "files", "path": "*.jsonl"}, SourceContext(tmp_path, keyed)).source
    assert [getattr(piece, "text", None) for piece in source.read("a.jsonl")] == ["b", "c"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01 10:00:00", "2024-05-01T10:00:00Z"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
        (1714557600, "2024-05-01T10:00:00Z"),
        (1714557600000, "2024-05-01T10:00:00Z"),
        (None, None),
    ],
)
def test_times_are_the_sources_own(tmp_path: Path, collect: Collect, value: Any, expected: str | None) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "x", "at": value})
    (document,), _ = collect(path="a.jsonl", fields={"text": "text", "time": "at"})
    assert document.time == expected


def test_a_column_of_the_time_that_no_row_has(tmp_path: Path, collect: Collect) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "x", "when": "2024-05-01"}, {"text": "y", "when": "2024-05-02"})
    with pytest.raises(UserError, match=r"files: no row has the column 'whenn' of fields\.time; did you mean 'when'\?"):
        collect(path="a.jsonl", fields={"text": "text", "time": "whenn"})
    with pytest.raises(UserError, match=r"no row has the column 'meta\.made' of fields\.time; known: text, when"):
        collect(path="a.jsonl", fields={"text": "text", "time": "meta.made"})
    write_rows(tmp_path / "b.jsonl", {"text": "z"}, {"text": "w", "meta": {"made": None}})
    documents, _ = collect(path="?.jsonl", fields={"text": "text", "time": "when"})
    assert [each.time for each in documents] == ["2024-05-01", "2024-05-02", None, None]
    documents, _ = collect(path="?.jsonl", fields={"text": "text", "time": "meta.made"})
    assert len(documents) == 4


@pytest.mark.parametrize("value", ["01/02/2024", "yesterday", True, [1], 1e300, "9" * 10])
def test_a_time_that_is_none_is_quarantined(tmp_path: Path, collect: Collect, value: Any) -> None:
    write_rows(tmp_path / "a.jsonl", {"text": "x", "at": value})
    documents, accounting = collect(path="a.jsonl", fields={"text": "text", "time": "at"})
    assert not documents
    assert "time is neither ISO 8601 nor" in accounting.quarantined[0].reason


@pytest.mark.parametrize(
    ("name", "rows", "fields"),
    [
        ("1-instruct-qa/gsm8k_train.jsonl.gz", 7473, None),
        ("1-instruct-qa/gpteacher_roleplay.json.gz", 1923, None),
        ("1-instruct-qa/dolly_excerpt.jsonl.gz", 151, None),
        ("1-instruct-qa/truthfulqa.jsonl.gz", 407, {"prompt": "Question", "response": "Best Answer"}),
        ("2-classification-ner/banking77_test.csv.gz", 3080, {"text": "text", "label": "category"}),
        ("4-fairness-safety/davidson_labeled.csv.gz", 24783, {"text": "tweet", "label": "class"}),
        ("5-pii/FakeNameGenerator.com_3000.csv.gz", 3000, {"text": "Occupation", "subject": "EmailAddress"}),
        ("8-nasty-inputs/blns.json", 515, None),
    ],
)
def test_every_row_of_real_files_is_accounted_for(
    shared_data: Path, collect: Collect, name: str, rows: int, fields: Any
) -> None:
    settings = {"fields": fields} if fields else {}
    documents, accounting = collect(path=str(shared_data / name), **settings)
    assert accounting.read == rows
    assert len(documents) == accounting.kept == rows - len(accounting.quarantined)
    assert len(accounting.quarantined) <= rows // 100


def test_hostile_files_are_read_or_told(shared_data: Path, tmp_path: Path, collect: Collect) -> None:
    """Whatever the bytes, under whatever name: no error escapes, and every file is accounted for."""
    for archive_name in ("xz_good_bad.tar.gz", "jsontestsuite.tar.gz"):
        with tarfile.open(shared_data / "8-nasty-inputs" / archive_name) as archive:
            for place, member in enumerate(member for member in archive if member.isfile()):
                file = archive.extractfile(member)
                assert file is not None
                data = file.read()
                for suffix in ("jsonl", "json", "csv", "parquet", "txt", "jsonl.gz"):
                    (tmp_path / f"{archive_name[0]}{place}.{suffix}").write_bytes(data)
    for name in ("utf8tests.txt", "utf8tests.bin"):
        for suffix in ("jsonl", "json", "csv", "txt"):
            (tmp_path / f"{name}.{suffix}").write_bytes((shared_data / "8-nasty-inputs" / name).read_bytes())
    (tmp_path / "packed.jsonl").write_bytes(lzma.compress(b'{"text": "x"}'))
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.iterdir()}
    documents, accounting = collect(path="*")
    told = {piece.source.removeprefix("files:") for piece in accounting.quarantined}
    told |= {document.locator.partition(":")[0] for document in documents}
    silent = {name for name in files - told if (tmp_path / name).stat().st_size > 0 and not name.endswith(".csv")}
    # An array without elements, or nothing but white space, holds no rows.
    assert all((tmp_path / name).read_bytes().strip() in (b"", b"\xef\xbb\xbf", b"[]") for name in silent)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reading": {"workers": -3}}, "reading: workers is -3; expected at least 1"),
        ({"reading": {"largest": -1}}, "reading: largest is -1; expected at least 1"),
        ({"reading": {"second": 1}}, "no setting 'reading.second'; did you mean 'seconds'?"),
        ({"archives": {"ratio": 0}}, "archives: ratio is 0; expected at least 1"),
        ({"archives": {"depth": -1}}, "archives: depth is -1; expected at least 0"),
        ({"max_row_bytes": -1}, "max_row_bytes: input should be greater than 0"),
        ({"retain_until": "someday"}, "retain_until: expected a time in ISO 8601, such as 2027-01-31"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, collect: Collect, settings: dict[str, Any], said: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(UserError) as caught:
        collect(path="a.jsonl", **settings)
    assert str(caught.value).endswith(said)

"""Transforms fuse, see order where they need it, and lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.core.errors import UserError
from treadle.core.executors import InProcess, Pool
from treadle.text.accounting import Accounting
from treadle.text.document import Document, document_id
from treadle.text.transform import load_transforms, run_transforms

STEPS: list[Any] = ["normalize", {"filter": {"min_chars": 5}}, "deduplicate", {"redact": {"kinds": ["email"]}}]


def documents(*texts: str, **fields: Any) -> list[Document]:
    return [
        Document(document_id("t", str(n), text.encode()), "t", str(n), text, fields=dict(fields))
        for n, text in enumerate(texts)
    ]


def run(
    made: list[Document], steps: list[Any], project: Path | None = None, **options: Any
) -> tuple[list[Document], Accounting]:
    accounting = Accounting()
    shards = run_transforms([made], load_transforms(steps, project), accounting, **options)
    return [document for shard in shards for document in shard], accounting.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=30))
def test_the_sum_holds_and_ids_stay(texts: list[str]) -> None:
    made = documents(*texts)
    kept, accounting = run(made, STEPS)
    assert accounting.read == len(texts)
    assert {document.id for document in kept} <= {document.id for document in made}
    assert [int(document.locator) for document in kept] == sorted(int(document.locator) for document in kept)


def test_drops_carry_rule_reason_and_sample() -> None:
    made = documents("the same text", "tiny", "the  same\ttext", "mail a.b@mail.test now")
    kept, accounting = run(made, STEPS)
    assert [document.text for document in kept] == ["the same text", "mail [EMAIL] now"]
    assert accounting.dropped == {"filter.min_chars": 1, "deduplicate.exact": 1}
    assert accounting.samples["deduplicate.exact"][0].reason == f"the same text as {made[0].id}"
    assert "fewer than 5" in accounting.samples["filter.min_chars"][0].reason
    assert accounting.notes["redact.email"] == 1


@pytest.fixture
def many() -> list[Document]:
    texts = [f"text {n % 900}  mail u{n}@mail.test" if n % 3 else f"word {n % 100}" for n in range(5_000)]
    return documents(*texts)


def test_a_pool_gives_what_one_process_gives(many: list[Document]) -> None:
    alone, accounting = run(many, STEPS, map=InProcess().map)
    together, also = run(many, STEPS, map=Pool(2).map)
    assert alone == together
    assert accounting == also
    assert accounting.dropped["deduplicate.exact"] > 1_000


def test_batches_do_not_matter(many: list[Document]) -> None:
    expected, _ = run(many, STEPS)
    for size in (1, 999, 5_000):
        batches = [many[start : start + size] for start in range(0, len(many), size)]
        shards = list(run_transforms(batches, load_transforms(STEPS, None), Accounting()))
        assert [document for shard in shards for document in shard] == expected


def test_labels_that_contradict_have_a_rule_of_their_own() -> None:
    made = documents("good tea", label="1") + documents("good tea", "good tea", label="0")[1:]
    kept, accounting = run(made, ["deduplicate"])
    assert kept == made[:1]
    assert accounting.dropped == {"deduplicate.label_conflict": 1}


def test_a_pass_starts_with_no_memory() -> None:
    loaded = load_transforms(["deduplicate"], None)
    made = documents("x", "y")
    for _ in range(2):
        assert list(run_transforms([made], loaded, Accounting())) == [made]


PROJECT = """
from dataclasses import replace
from treadle.text.accounting import Dropped, Note

def shout(documents, *, mark: str = "!", times: int = 1):
    for document in documents:
        if document.text.startswith("no"):
            yield Dropped(document, "shout.no", "it says no")
        else:
            yield replace(document, text=document.text.upper() + mark * times)
    yield Note("shout.seen", len(documents))

def loses(documents):
    yield from documents[1:]

def doubles(documents):
    yield from documents
    yield documents[0]

def invents(documents):
    yield "something"

class Every:
    ordered = True
    def __init__(self, *, step: int):
        self.step, self.seen = step, 0
    def __call__(self, documents):
        for document in documents:
            self.seen += 1
            yield document if self.seen % self.step == 0 else Dropped(document, "every.other", "not its turn")

not_one = 5
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / f"own_{tmp_path.name.replace('-', '_')}.py").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def own(project: Path) -> Callable[[str], str]:
    return lambda name: f"own_{project.name.replace('-', '_')}:{name}"


def test_a_projects_own_function_and_class(project: Path, own: Callable[[str], str]) -> None:
    made = documents("yes", "no", "tea", "well")
    kept, accounting = run(made, [{own("shout"): {"mark": "?", "times": 2}}, {own("Every"): {"step": 2}}], project)
    assert [document.text for document in kept] == ["TEA??"]
    assert accounting.dropped == {"shout.no": 1, "every.other": 2}
    assert accounting.notes == {"shout.seen": 4}


@pytest.mark.parametrize("name", ["loses", "doubles", "invents"])
def test_a_transform_that_does_not_account_for_a_document_is_named(
    project: Path, own: Callable[[str], str], name: str
) -> None:
    with pytest.raises(UserError, match=f"transform own_.*{name}"):
        run(documents("a", "b"), [own(name)], project)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("normalise", "there is no transform called 'normalise'; did you mean 'normalize'"),
        ({"filter": {"min_char": 5}}, "no setting 'min_char'; did you mean 'min_chars'"),
        ({"filter": {"min_chars": "five"}}, "min_chars: input should be a valid integer"),
        ({"filter": {"min_chars": True}}, "min_chars: input should be a valid integer"),
        ({"filter": None}, "filter sets no limit"),
        ({"filter": {"min_chars": 9, "max_chars": 5}}, "filter would drop everything"),
        ({"redact": {"kinds": ["e-mail"]}}, "no kind of personal data called 'e-mail'; did you mean 'email'"),
        ({"redact": {"kinds": "email"}}, r"kinds\S* input should be a valid"),
        ({"normalize": {}, "redact": {}}, "expected a name, or one name with its settings"),
        (5, "expected a name, or one name with its settings"),
        ("nowhere:function", "there is no .*nowhere.py"),
    ],
)
def test_mistakes_in_the_list_are_told_before_anything_runs(tmp_path: Path, step: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_transforms([step], tmp_path)


def test_settings_of_a_projects_own_are_checked_against_its_signature(project: Path, own: Callable[[str], str]) -> None:
    with pytest.raises(UserError, match="no setting 'time'; did you mean 'times'"):
        load_transforms([{own("shout"): {"time": 1}}], project)
    with pytest.raises(UserError, match="step is missing"):
        load_transforms([own("Every")], project)
    with pytest.raises(UserError, match="is not a function or a class"):
        load_transforms([own("not_one")], project)


def test_keys_follow_settings_and_a_projects_source(project: Path, own: Callable[[str], str]) -> None:
    def key(step: Any) -> dict[str, Any]:
        return load_transforms([step], project)[0].key()

    assert key("normalize") == {"name": "normalize", "settings": {}, "version": key("normalize")["version"]}
    assert key({"filter": {"min_chars": 1}}) != key({"filter": {"min_chars": 2}})
    assert key(own("shout"))["version"].startswith("b3:")


def test_one_that_comes_from_another_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_texts.py").write_text(PROJECT)
    info = tmp_path / "outside_texts-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-texts\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[treadle.transforms]\nshout = outside_texts:shout\n")
    monkeypatch.syspath_prepend(tmp_path)
    (kept, *_), _ = run(documents("tea"), ["shout"])
    assert kept.text == "TEA!"
    assert load_transforms(["shout"], None)[0].key()["version"] == "outside-texts 1.2"


def test_a_pool_takes_shards_as_it_can_work_on_them() -> None:
    taken = []

    def shards() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield -number

    results = Pool(1).map(abs, shards())
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == list(range(1, 50))

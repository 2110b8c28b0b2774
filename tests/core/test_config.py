"""Every mistake in a settings file is one line that says where it is and what was expected."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from treadle.core.config import LIMIT, Settings, load, load_with_places, read_yaml, scalar
from treadle.core.errors import MissingExtra, UserError
from treadle.core.place import about


class Rule(Settings):
    name: str
    limit: int = 3


class File(Settings):
    kind: Literal["file"]
    path: str


class Web(Settings):
    kind: Literal["web"]
    url: str


class Pace(Settings):
    steps: list[float] = Field([0.1, 0.5], min_length=1)
    half: Annotated[int, Field(ge=1)] | Literal["half"] = "half"
    on: str | dict[str, int] = "here"
    words: list[str] | dict[str, Literal["keep", "drop"]] | None = None

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if sorted(value) != value:
            raise ValueError("expected rising shares")
        return value


class Canary(Settings):
    pace: Pace = Pace()
    margin: float


class Training(Settings):
    learning_rate: float = Field(1e-4, gt=0)
    epochs: int = 1
    shuffle: bool = True
    note: str | None = None
    sizes: tuple[int, ...] = ()

    @field_validator("note")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        if value and len(value) > 5:
            raise ValueError("expected at most 5 letters")
        return value


class Example(Settings):
    name: str
    train: Training = Training()
    rules: tuple[Rule, ...] = ()
    extra: Training | None = None
    sources: tuple[File | Web, ...] = ()
    canary: Canary | None = None


GOOD = """\
name: demo
train:
  learning_rate: 2e-4
  sizes: [1, 2]
rules:
  - name: short
    limit: 5
"""


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "treadle.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def mistake(tmp_path: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(write(tmp_path, text), Example, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_good_file(tmp_path: Path) -> None:
    found = load(write(tmp_path, GOOD), Example)
    assert found.train.learning_rate == 2e-4
    assert found.train.sizes == (1, 2)
    assert found.rules == (Rule(name="short", limit=5),)
    assert load(write(tmp_path, "\ufeff" + GOOD), Example) == found
    assert load(write(tmp_path, GOOD.replace("\n", "\r\n")), Example) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: x\ntrain:\n  lerning_rate: 1\n",
            "treadle.yaml:3: train.lerning_rate: unknown key 'lerning_rate'; did you mean 'learning_rate'?",
        ),
        ("name: x\ntrian: {}\n", "treadle.yaml:2: trian: unknown key 'trian'; did you mean 'train'?"),
        (
            "name: x\nzzzzzz: 1\n",
            "treadle.yaml:2: zzzzzz: unknown key 'zzzzzz'; known: canary, extra, name, rules, sources, train",
        ),
        (
            "name: x\nrules:\n  - name: a\n  - nam: b\n",
            "treadle.yaml:4: rules[1].nam: unknown key 'nam'; did you mean 'name'?",
        ),
        ("train: {}\n", "treadle.yaml:1: name: is missing"),
        ("name: x\nrules:\n  - name: a\n  - limit: 1\n", "treadle.yaml:4: rules[1].name: is missing"),
        (
            "name: x\ntrain:\n  epochs: many\n",
            "treadle.yaml:3: train.epochs: input should be a valid integer, got text 'many'",
        ),
        (
            "name: x\ntrain:\n  epochs: '3'\n",
            "treadle.yaml:3: train.epochs: input should be a valid integer, got text '3'",
        ),
        ("name: x\ntrain:\n  epochs: 1.5\n", "treadle.yaml:3: train.epochs"),
        (
            "name: x\ntrain:\n  epochs: true\n",
            "treadle.yaml:3: train.epochs: input should be a valid integer, got a boolean True",
        ),
        (
            "name: x\ntrain:\n  shuffle: off\n",
            "treadle.yaml:3: train.shuffle: input should be a valid boolean, got text 'off'",
        ),
        (
            "name: x\ntrain:\n  shuffle: 1\n",
            "treadle.yaml:3: train.shuffle: input should be a valid boolean, got a number 1",
        ),
        ("name: 5\n", "treadle.yaml:1: name: input should be a valid string, got a number 5"),
        (
            "name: x\ntrain:\n  learning_rate: -1\n",
            "treadle.yaml:3: train.learning_rate: input should be greater than 0",
        ),
        (
            "name: x\ntrain:\n  learning_rate: .inf\n",
            "treadle.yaml:3: train.learning_rate: input should be a finite number",
        ),
        (
            "name: x\ntrain:\n  learning_rate: 1e999\n",
            "treadle.yaml:3: train.learning_rate: input should be a finite number",
        ),
        ("name: x\ntrain:\n  note: too long\n", "treadle.yaml:3: train.note: expected at most 5 letters"),
        ("name: x\ntrain:\n", "treadle.yaml:2: train: input should be an object"),
        ("name: x\nrules: {}\n", "treadle.yaml:2: rules: input should be a valid array, got a section"),
        (
            "name: x\nsources:\n  - kind: file\n    pth: a\n",
            "treadle.yaml:4: sources[0].pth: unknown key 'pth'; did you mean 'path'?",
        ),
        (
            "name: x\ncanary:\n  margin: 1\n  pace:\n    half: 0\n",
            "treadle.yaml:5: canary.pace.half: input should be greater than or equal to 1 or 'half', got a number 0",
        ),
        (
            "name: x\ncanary:\n  margin: 1\n  pace:\n    on: 5\n",
            "treadle.yaml:5: canary.pace.on: input should be a valid string or an object, got a number 5",
        ),
        (
            "name: x\ncanary:\n  margin: 1\n  pace:\n    words:\n      email: nuke\n",
            "treadle.yaml:6: canary.pace.words.email: input should be 'keep' or 'drop', got text 'nuke'",
        ),
        ("name: x\nname: y\n", "treadle.yaml:2: name is given twice; keep one"),
        ('name: x\ntrain:\n  epochs: 1\n  "epochs": 2\n', "treadle.yaml:4: train.epochs is given twice; keep one"),
        ("name: x\n? [a, b]\n: 1\n", "treadle.yaml:2: a key must be plain text"),
        ("- name\n", "treadle.yaml:1: expected keys such as `name:` and `collect:`, got a list"),
        ("", "treadle.yaml:1: expected keys such as `name:` and `collect:`, got nothing"),
        ("just text", "treadle.yaml:1: expected keys such as `name:` and `collect:`, got text"),
        (
            "name: x\ntrain:\n\tepochs: 1\n",
            "treadle.yaml:3: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("name: x\ntrain: [1, 2\n", "treadle.yaml:3: not valid YAML"),
        ("name: x\n  train: 1\n", "treadle.yaml:2: not valid YAML"),
        ("name: 'x\n", "not valid YAML"),
        ("name: x\n---\nname: y\n", "treadle.yaml:2: not valid YAML"),
        (
            "name: x\nrules: &all\n  - name: a\n",
            "treadle.yaml:2: anchors and aliases are not used here; write the value out",
        ),
        ("name: x\nrules: *all\n", "treadle.yaml:2: anchors and aliases are not used here; write the value out"),
        ("name: x\n<<: *base\n", "treadle.yaml:2: anchors and aliases are not used here"),
        (
            "name: !!str 5\n",
            "treadle.yaml:1: tags such as tag:yaml.org,2002:str are not used here; write a plain value",
        ),
        (
            "name: x\ntrain: !!python/object/apply:os.system [id]\n",
            "treadle.yaml:2: tags such as tag:yaml.org,2002:python",
        ),
        ("name: !local x\n", "treadle.yaml:1: tags such as !local are not used here"),
        ("name: x\ntrain:\n  note: a\0b\n", "treadle.yaml:3: not valid YAML: character"),
        (b"name: x\ntrain:\n  note: \xff\n", "treadle.yaml:3: byte 23 is not UTF-8; save the file as UTF-8"),
        ("name: ghp_" + "a1" * 20 + "\n", "treadle.yaml:1: name holds a secret; write ${env:NAME} instead"),
        (
            "name: x\nsources:\n  - kind: web\n    url: https://me:hunter2@host\n",
            "treadle.yaml:4: sources[0].url holds a secret",
        ),
        ("name: x\ntrain:\n  api_key: abc\n", "treadle.yaml:3: train.api_key holds a secret"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path: Path, text: str | bytes, expected: str) -> None:
    message = mistake(tmp_path, text)
    assert expected in message


def test_a_billion_laughs_are_not_laughed(tmp_path: Path) -> None:
    text = "a: &a [x, x]\n" + "".join(
        f"{name}: &{name} [*{last}, *{last}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "anchors and aliases" in mistake(tmp_path, text)


def test_nesting_has_a_bottom(tmp_path: Path) -> None:
    assert "nested more than 50 deep" in mistake(tmp_path, "name: " + "[" * 100_000)
    assert "nested more than 50 deep" in mistake(tmp_path, "".join(" " * depth + "a:\n" for depth in range(200)))


def test_a_file_that_is_too_large_or_not_there(tmp_path: Path) -> None:
    assert f"settings have at most {LIMIT}" in mistake(tmp_path, b"#" * (LIMIT + 1))
    with pytest.raises(UserError, match="make a project with: treadle init"):
        load(tmp_path / "nothing.yaml", Example)
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        load(tmp_path, Example)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 1e4),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("+12", 12),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2024_01", "2024_01"),
        ("1:30", "1:30"),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("nULL", "nULL"),
        ("2024-01-01", "2024-01-01"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("1.2.3", "1.2.3"),
        ("0b11", "0b11"),
        ("-0x1", "-0x1"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("=", "="),
        ("9" * 5000, "9" * 5000),
        ("٣", "٣"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(scalar(".nan"))


@given(st.text())
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        read_yaml(text, "x.yaml")
    except UserError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("x.yaml:")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_quoted_yaml_comes_back_as_it_was(value: object) -> None:
    text = (
        yaml.safe_dump(value, default_style='"', allow_unicode=True)
        .replace("!!int ", "")
        .replace("!!null ", "")
        .replace("!!bool ", "")
    )
    found, _ = read_yaml(text, "x")
    assert _texts(found) == _texts(value)


def _texts(value: object) -> object:
    """The dump quotes everything, so only the shape and the texts can be compared."""
    if isinstance(value, dict):
        return {str(key): _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)


# -- --set


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.learning_rate=5e-5", lambda found: found.train.learning_rate == 5e-5),
        ("name=other", lambda found: found.name == "other"),
        ("train.shuffle=false", lambda found: found.train.shuffle is False),
        ("train.note=", lambda found: found.train.note is None),
        ("train.sizes=[3, 4]", lambda found: found.train.sizes == (3, 4)),
        ("rules.0.limit=9", lambda found: found.rules[0].limit == 9),
        ("extra.epochs=4", lambda found: found.extra.epochs == 4),
        ("train.note=a=b", lambda found: found.train.note == "a=b"),
        ("train={epochs: 2}", lambda found: found.train.epochs == 2),
    ],
)
def test_overrides(tmp_path: Path, override: str, read: object) -> None:
    assert callable(read)
    assert read(load(write(tmp_path, GOOD), Example, (override,)))


def test_an_empty_section_can_be_overridden_into(tmp_path: Path) -> None:
    assert load(write(tmp_path, "name: x\nextra:\n"), Example, ("extra.epochs=4",)).extra == Training(epochs=4)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lerning_rate=1", "--set train.lerning_rate: unknown key 'lerning_rate'; did you mean 'learning_rate'?"),
        ("train.epochs=many", "--set train.epochs: input should be a valid integer, got text 'many'"),
        ("canary.pace.steps=[0.5, 0.1]", "--set canary.pace.steps: expected rising shares"),
        ("canary.pace.steps=[0.5, x]", "--set canary.pace.steps[1]: input should be a valid number, got text 'x'"),
        ("canary.pace.half=0", "--set canary.pace.half: input should be greater than or equal to 1 or 'half', got"),
        ("canary.pace.stepz=1", "--set canary.pace.stepz: unknown key 'stepz'; did you mean 'steps'?"),
        ("canary.pace={stepz: 1}", "--set canary.pace.stepz: unknown key 'stepz'; did you mean 'steps'?"),
        ("canary={pace: {half: 0}}", "--set canary.pace.half: input should be"),
        ("canary.pace.half=2", "--set canary.margin: is missing"),
        ("rules.0.limit=x", "--set rules[0].limit: input should be a valid integer, got text 'x'"),
        ("rules.0={limit: 2}", "--set rules[0].name: is missing"),
        ("train.epochs", "--set 'train.epochs': expected key.path=value"),
        ("=5", "--set '=5': expected key.path=value"),
        ("train..epochs=5", "expected key.path=value"),
        ("name.x=5", "--set 'name.x=5': name has no 'x'; it is text"),
        ("rules.7.limit=5", "rules has no '7'; it is a list"),
        ("name=[1", "--set name:1: not valid YAML"),
        ("name=hf_" + "a" * 34, "--set name holds a secret"),
        ("name=&a b", "--set name:1: anchors and aliases are not used here"),
    ],
)
def test_a_mistake_in_an_override_is_one_line(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in mistake(tmp_path, GOOD, override)


def test_a_mistake_in_the_file_stays_one_beside_an_override(tmp_path: Path) -> None:
    text = "name: x\ntrain:\n  epochs: many\n"
    assert "treadle.yaml:3: train.epochs: " in mistake(tmp_path, text, "train.learning_rate=1", "canary.margin=1")
    text = "name: x\ncanary:\n  pace: {}\n"
    assert "treadle.yaml:2: canary.margin: is missing" in mistake(tmp_path, text, "canary.pace.half=2")


# -- what is found wrong later


@pytest.mark.parametrize(
    ("where", "inside", "said", "expected"),
    [
        ("rules[0]", ("limit",), "rules[0] (short): too low", "treadle.yaml:7: rules[0] (short): too low"),
        ("rules[0]", ("nothing", "there"), "no such rule", "treadle.yaml:6: rules[0]: no such rule"),
        ("train.sizes", (), "too large", "--set train.sizes: too large"),
        ("train.sizes", ("first",), "train.sizes: too large", "--set train.sizes: too large"),
        ("train.epochs", (), "too many", "treadle.yaml:2: train: too many"),
        ("extra.epochs", (), "too many", "too many"),
    ],
)
def test_an_error_about_a_part_of_the_file_says_its_line(
    tmp_path: Path, where: str, inside: tuple[str, ...], said: str, expected: str
) -> None:
    _, places = load_with_places(write(tmp_path, GOOD), Example, ("train.sizes=[3]",))
    with pytest.raises(UserError) as caught, places.pointing(), about(where, *inside):
        raise UserError(said)
    assert str(caught.value) == expected


def test_an_error_about_no_part_of_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    _, places = load_with_places(write(tmp_path, GOOD), Example)
    with pytest.raises(UserError, match=r"^the disk is full$"), places.pointing():
        raise UserError("the disk is full")
    with pytest.raises(MissingExtra, match=r"^ray is not installed; run: "), places.pointing(), about("rules[0]"):
        raise MissingExtra("ray", extra="ray")

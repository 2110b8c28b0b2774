"""Searching runs: what is found, in which order, and what is said of a search that cannot be read."""

from __future__ import annotations

import operator
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from postgresql_server import Server
from treadle.console.run_plot import page
from treadle.core.errors import UserError
from treadle.core.runs import RunRecord
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record
from treadle.record.run_filter import parse, parse_field
from treadle.record.run_sql import Search, listed, search
from treadle.tracking import open_record

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs whose numbers are known: loss i / 10, rate i * 1e-4, teams a, b and none."""
    where = tmp_path_factory.mktemp("runs")
    with treadle.start_run("outer", folder=where, system=None):  # keeps the record open
        for i in range(COUNT):
            tags: dict[str, Any] = {"team": "ab"[i % 2], "index": i} if i % 3 else {}
            params = {
                "lr": i * 1e-4,
                "optimizer": ("adamw", "sgd")[i % 2],
                "net": {"layers": i % 4},
                "prompt": f"no {i}",
            }
            with treadle.start_run(f"fit{i % 2}", params=params, tags=tags, seed=i, folder=where, system=None) as run:
                for step in range(3):
                    run.log(step, loss=i / 10 + (2 - step), **({"eval loss": float(i)} if i < 5 else {}))
    return where


def losses(record: Record, where: str, **more: Any) -> list[float]:
    return [run.metrics["loss"] for run in search(record.runs, Search(parse(where), **more)) if "loss" in run.metrics]


CASES: list[tuple[str, Callable[[int], bool]]] = [
    ("metrics.loss < 1", lambda i: i < 10),
    ("metrics.loss <= 1 and params.lr > 4e-4", lambda i: 4 < i <= 10),
    ("metrics.loss < .3 or metrics.loss >= 2e0", lambda i: i < 3 or i >= 20),
    ("metrics.loss < 1 and metrics.loss > 2 or params.lr = 0", lambda i: i == 0),
    ("metrics.loss < 1 and (metrics.loss > 2 or params.lr = 0)", lambda i: i == 0),
    ("tags.team = 'a'", lambda i: i % 3 != 0 and i % 2 == 0),
    ("tags.team != 'a'", lambda i: i % 3 != 0 and i % 2 == 1),
    ("not tags.team = 'a'", lambda i: i % 3 == 0 or i % 2 == 1),
    ("tags.team in ('a', 'c')", lambda i: i % 3 != 0 and i % 2 == 0),
    ("tags.team not in ('a', 'c')", lambda i: i % 3 == 0 or i % 2 == 1),
    ("tags.team = null", lambda i: i % 3 == 0),
    ("tags.team != null and tags.index >= 10", lambda i: i % 3 != 0 and i >= 10),
    ("params.optimizer ~ 'DAM'", lambda i: i % 2 == 0),
    ("params.optimizer !~ 'DAM'", lambda i: i % 2 == 1),
    ("params.optimizer ~ '%'", lambda _: False),
    ("params.optimizer > 3", lambda _: False),
    ("params.optimizer < 'b'", lambda i: i % 2 == 0),
    ("params.net.layers = 3", lambda i: i % 4 == 3),
    ("params.prompt = 'no 7'", lambda i: i == 7),
    ("params.prompt in ('no 7', 'no 8')", lambda i: i in (7, 8)),
    ('metrics."eval loss" > 2', lambda i: 2 < i < 5),
    ("metrics.`eval loss` = null", lambda i: i >= 5),
    ("name = 'fit1' AND seed < 4", lambda i: i % 2 == 1 and i < 4),
    ("step = 'experiment.fit0' and status = 'done' and kind = \"experiment\"", lambda i: i % 2 == 0),
    ("not not (seed == 3) or seed <> 3 and seed < 1", lambda i: i in (0, 3)),
    ("started > '2020-01-01' and seconds >= 0 and seed < 2", lambda i: i < 2),
    ("params.lr > -1 and metrics.loss > +2.2", lambda i: i > 22),
]


@pytest.mark.parametrize(("where", "holds"), CASES)
def test_what_is_found(folder: Path, where: str, holds: Callable[[int], bool]) -> None:
    with open_record(folder) as record:
        found = sorted(losses(record, where))
    assert found == [i / 10 for i in range(COUNT) if holds(i)]


def test_order_and_limit(folder: Path) -> None:
    with open_record(folder) as record:
        by = parse_field("metrics.loss")
        assert losses(record, "params.lr >= 0", sort=by, limit=3) == [0.0, 0.1, 0.2]
        assert losses(record, "params.lr >= 0", sort=by, descending=True, limit=2) == [2.3, 2.2]
        latest = search(record.runs, Search())
        assert [run.facts["seed"] for run in latest[:2]] == [COUNT - 1, COUNT - 2]
        eval_first = search(record.runs, Search(sort=parse_field('metrics."eval loss"'), descending=True))
        assert [run.metrics.get("eval loss") for run in eval_first[:6]] == [4.0, 3.0, 2.0, 1.0, 0.0, None]
        assert len(eval_first) == COUNT + 1


@pytest.mark.parametrize(
    ("where", "column", "says"),
    [
        ("", 1, "expected a field, got the end"),
        ("metric.loss < 2", 1, "did you mean 'metrics.loss'?"),
        ("stats = 'done'", 1, "did you mean 'status'?"),
        ("params = 2", 1, "write params. and a name"),
        ("metrics.loss", 13, "expected one of = !="),
        ("metrics.loss <", 15, "expected a number, a text or null, got the end"),
        ("metrics.loss < 2 and", 21, "expected a field"),
        ("metrics.loss < 2 params.lr = 1", 18, "expected 'and' or 'or' before 'params.lr'"),
        ("(metrics.loss < 2", 18, "expected ')'"),
        ("metrics.loss < 2)", 17, "before ')'"),
        ("status = done", 10, "write 'done' in quotes"),
        ("status = 'done", 10, "close the quote"),
        ("metrics.loss < 'two'", 14, "is a number"),
        ("metrics.loss ~ 'two' or", 14, "is a number"),
        ("params.lr ~ 2", 11, "piece of text"),
        ("tags.team ~ 'a'", 11, "use ="),
        ("params.lr < null", 11, "= or !="),
        ("params.lr in 3", 14, "expected '('"),
        ("params.lr in (3", 16, "expected ')'"),
        ("params.lr ; drop table runs", 11, "';' means nothing"),
        ("2 < metrics.loss", 1, "expected a field"),
        ("not " * 60 + "seed = 1", 201, "nested more than 50 deep"),
        ("seed = 1 and metrics.los < 2", 14, "did you mean 'metrics.loss'?"),
        ("__import__('os') = 1", 1, "there is no field '__import__'"),
    ],
)
def test_what_is_said_of_a_mistake(folder: Path, where: str, column: int, says: str) -> None:
    with open_record(folder) as record, pytest.raises(UserError) as caught:
        search(record.runs, Search(parse(where)))
    assert f"--where, column {column}: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_that_no_run_has_is_not_sorted_by(folder: Path) -> None:
    with open_record(folder) as record, pytest.raises(UserError, match=r"--sort, column 1: no run has metrics\.los"):
        search(record.runs, Search(sort=parse_field("metrics.los")))
    with pytest.raises(UserError, match="expected nothing more"):
        parse_field("metrics.loss desc")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse(text)
    except UserError as error:
        assert "\n" not in str(error) or "\n" in text


OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}


def made_up(chance: random.Random, depth: int) -> tuple[str, Callable[[RunRecord], bool]]:
    """A filter and, worked out by other means, what it should find."""
    if depth and chance.random() < 0.7:
        (left, first), (right, second) = made_up(chance, depth - 1), made_up(chance, depth - 1)
        word = chance.choice(["and", "or"])
        joined: Callable[[RunRecord], bool] = (
            (lambda run: first(run) and second(run)) if word == "and" else (lambda run: first(run) or second(run))
        )
        if chance.random() < 0.4:
            return f"not (({left}) {word} ({right}))", lambda run: not joined(run)
        return f"(({left}) {word} ({right}))", joined
    if chance.random() < 0.4:
        return one_that_no_table_tells(chance)
    sign, field = chance.choice(list(OPERATORS)), chance.choice(["metrics.eval", "metrics.loss", "params.lr"])
    bound = round(chance.uniform(0, 2.5), 1)
    name = field.partition(".")[2]

    def holds(run: RunRecord) -> bool:
        value = {**run.metrics, **run.parameters}.get(name)
        return value is not None and bool(OPERATORS[sign](value, bound))

    return f"{field} {sign} {bound}", holds


def one_that_no_table_tells(chance: random.Random) -> tuple[str, Callable[[RunRecord], bool]]:
    """Of a run's facts."""
    number = chance.randrange(COUNT)
    return chance.choice(
        [
            (f"seed >= {number}", lambda run: (run.facts.get("seed") or -1) >= number),
            ("name = 'fit1'", lambda run: run.facts["name"] == "fit1"),
            ("commit != null", lambda run: run.facts["commit"] is not None),
            ("kind != 'experiment'", lambda _: False),
        ]
    )


@pytest.mark.parametrize("seed", range(40))
def test_made_up_searches(folder: Path, seed: int) -> None:
    where, holds = made_up(random.Random(seed), 4)
    with open_record(folder) as record:
        everything = search(record.runs, Search())
        wanted = [run.id for run in everything if holds(run)]
        try:
            found = [run.id for run in search(record.runs, Search(parse(where)))]
        except UserError as error:
            assert "no run has metrics.eval" in str(error)
            found = []
        assert found == wanted
        try:
            part, total = listed(record.runs, Search(parse(where), limit=3, offset=2))
        except UserError as error:
            assert "no run has metrics.eval" in str(error)
            part, total = [], len(wanted)
        assert ([run.id for run in part], total) == (wanted[2:5], len(wanted))


@pytest.mark.parametrize("by", ["metrics.loss", "params.lr", "params.optimizer", "seconds", "seed", "name", "started"])
@pytest.mark.parametrize("descending", [False, True])
def test_every_order_is_the_same_by_either_way(folder: Path, by: str, descending: bool) -> None:
    """What the tables sort, and what is sorted here because the filter asks for something that is in none."""
    field = parse_field(by)
    with open_record(folder) as record:
        told = search(record.runs, Search(parse("metrics.loss < 2"), sort=field, descending=descending))
        looked_at = search(
            record.runs, Search(parse("metrics.loss < 2 and kind = 'experiment'"), sort=field, descending=descending)
        )
        demanded = search(record.runs, Search(parse("params.lr >= 0"), sort=field, descending=descending))
    assert [run.id for run in told] == [run.id for run in looked_at]
    assert len(told) == 20
    assert [run.id for run in demanded if run.metrics["loss"] < 2] == [run.id for run in told]
    of = {"metrics.loss": lambda run: run.metrics["loss"], "seed": lambda run: run.facts["seed"]}
    if by in of:
        figures = [of[by](run) for run in told]
        assert figures == sorted(figures, reverse=descending)


NASTY = {
    "huge": 10**400,
    "flag": True,
    "nothing": None,
    "inner": {"b": {"c": 2.5}, "empty": {}},
    "inner.b.c": 7,  # the same whole name twice: the later in the order of canonical JSON stands
    "list": ["é", 1],
    "zero": "a\x00b",
    "half": "\ud800 half",
    "n" * 300: 1,
    "": "",
    "numbers": {3: "three"},
    "answers": {True: "yes"},
}


@pytest.mark.parametrize("server", [False, True])
def test_what_a_step_may_have_as_a_setting(server: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = request.getfixturevalue("postgresql").schema() if server else None
    with Workspace(tmp_path / "store", url, PROJECTIONS) as workspace:
        runs = workspace.runs
        run = runs.start(
            "tests.fit", version=1, key="k", parameters={"all": NASTY}, inputs={"corpus": ["b3:1", "b3:2"]},
            seed=1, progress=lambda *_: None, folder=tmp_path,
        )  # fmt: skip
        run.summary(loss=-0.0)
        runs.finish(run, "done", seconds=1)
        for where, found in (
            ("params.all.flag = true", 1),
            ("params.all.nothing = null", 1),
            ("params.all.nothing != 3", 0),
            ("params.all.inner.b.c = 7", 1),
            ("params.all.list ~ 'É'", 0),  # only ASCII has small letters here
            ("params.all.list ~ '\"é\"'", 1),
            ("params.all.huge ~ '000'", 1),
            ("params.all.zero ~ 'A'", 1),
            ("params.all.half ~ 'HALF'", 1),
            ("params.all.numbers.3 = 'three' and params.all.answers.true = 'yes'", 1),
            ("inputs.corpus ~ 'b3:2' and params.all.flag = 1", 1),
            ("inputs.corpus ~ 'b3:3'", 0),
            ("metrics.loss = 0", 1),
            ("status > 3 or seconds ~ '1' or seconds = 'done'", 0),
            ("status != 3 and seconds != 'x'", 1),
        ):
            assert len(search(runs, Search(parse(where)))) == found, where
        assert workspace.ledger.verify() == []


def test_a_record_from_before_the_table_is_searched_after_it_was_opened(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    database = copied / ".treadle" / "treadle.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DROP TABLE run_values")
        connection.execute("UPDATE meta SET value = '1' WHERE name = 'format'")
        connection.commit()
    with open_record(copied) as record:
        assert len(losses(record, "metrics.loss < 1 and tags.team = 'a'")) == 3
        assert record.ledger.verify() == []


def test_a_changed_value_is_found_by_verify(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    with closing(sqlite3.connect(copied / ".treadle" / "treadle.db")) as connection:
        connection.execute("UPDATE run_values SET number = 0 WHERE name = 'metrics.loss' AND number = 2.3")
        connection.commit()
    with open_record(copied) as record:
        assert {problem.ref.partition(":")[0] for problem in record.ledger.verify()} == {"run_values"}


def test_a_page_with_curves(folder: Path) -> None:
    with open_record(folder) as record:
        found = search(record.runs, Search(parse("metrics.loss < 1"), sort=parse_field("metrics.loss")))
        html = page(record, found, "loss < 1 & more")
    assert html.count("<polyline points=") == 10 + 5 + 10  # a line for each run and metric, and the keys of the table
    assert "loss &lt; 1 &amp; more" in html
    for outside in ("<script", "http://", "https://", "url(", "src="):
        assert outside not in html
    for run in found:
        assert run.id in html


def test_a_record_on_a_server_is_searched_alike(postgresql: Server, tmp_path: Path) -> None:
    with Workspace(tmp_path / "store", postgresql.schema(), PROJECTIONS) as workspace:
        runs = workspace.runs
        for number in range(6):
            run = runs.start(
                "tests.fit", version=1, key=f"k{number}", parameters={"lr": number * 1e-4, "name": f"n{number % 2}"},
                inputs={}, seed=1, progress=lambda *_: None, folder=tmp_path,
            )  # fmt: skip
            run.summary(loss=number / 10)
            runs.finish(run, "done", seconds=number)
        where = parse("metrics.loss >= .2 and params.name = 'n0' and seconds < 4.5")
        found = search(runs, Search(where, sort=parse_field("metrics.loss"), descending=True))
        assert [each.metrics["loss"] for each in found] == [0.4, 0.2]
        with pytest.raises(UserError, match=r"did you mean .?metrics\.loss"):
            search(runs, Search(parse("metrics.los < 1")))

"""The parts that CONTRIBUTING shows, added from outside: by ``module:function`` of a project, and by entry points of
another distribution. Each is used for real.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.conftest import Treadle
from docs.pages import ROOT, blocks
from tiny_models import write_model
from treadle.core import plugins
from treadle.core.artifacts import Builder
from treadle.core.digest import keyed_digest
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.settings import check
from treadle.evals.item import Item, Output
from treadle.evals.metric import load_metric
from treadle.evals.report import EvaluationReport
from treadle.evals.results import Evaluation, write_evaluation
from treadle.lm import optimization, own_model
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine, find_engine
from treadle.lm.gguf_file import GgufFile
from treadle.project import open_project
from treadle.record.release import Release, ReleaseSpec
from treadle.stages.govern import judge
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset
from treadle.text.document import Document, document_id
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.transform import load_transforms, run_transforms

NAMES = {
    "treadle.transforms": "no_shouting",
    "treadle.metrics": "brevity",
    "treadle.checks": "enough_items",
    "treadle.sources": "Notes",
    "treadle.engines": "Echo",
    "treadle.optimizations": "Halved",
}
ALL = [block.text for block in blocks(ROOT / "CONTRIBUTING.md") if block.language == "python"]
MODELS = [block for block in ALL if "my_models:" in block.splitlines()[0]]  # a module of their own: they load torch
SHOWN = [block for block in ALL if block not in MODELS]


@pytest.fixture
def clean_imports() -> Iterator[None]:
    """What a test imports from its own folder is gone afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("my_parts"):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(params=["module:function", "entry point"])
def door(request: pytest.FixtureRequest, tmp_path: Path, clean_imports: None) -> tuple[str, Path]:
    """What stands before a part's name in the file, and the project's folder; one door after the other."""
    project = tmp_path / "project"
    project.mkdir()
    if request.param == "module:function":
        (project / "my_parts.py").write_text("\n\n".join(SHOWN))
        return "my_parts:", project
    install(tmp_path / "site")
    return "", project


def install(site: Path) -> None:
    """A distribution as an installer leaves it, on the path."""
    info = site / "my_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_parts.py").write_text("\n\n".join(SHOWN))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    groups = [f"[{group}]\n{name} = my_parts:{name}\n" for group, name in NAMES.items()]
    (info / "entry_points.txt").write_text("\n".join(groups).replace("Echo =", "echo ="))
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()


def document(text: str) -> Document:
    return Document(document_id("test", text, text.encode()), "test", text, text)


def test_the_examples_are_short() -> None:
    assert (len(SHOWN), len(MODELS)) == (6, 3)
    # An engine has seven methods, most of one line; the others stay under 20 lines of code.
    for block in (*SHOWN[:4], *SHOWN[5:], *MODELS):
        assert len([line for line in block.splitlines() if line.strip() and not line.startswith("#")]) < 20


def test_a_filter(door: tuple[str, Path]) -> None:
    before, project = door
    transforms = load_transforms(["normalize", {before + "no_shouting": {"max_capitals": 0.3}}], project)
    accounting = Accounting()
    batches = [[document("Quiet words here"), document("LOUD WORDS HERE"), document("12 34")]]
    kept = [each.text for shard in run_transforms(batches, transforms, accounting) for each in shard]
    assert kept == ["Quiet words here", "12 34"]
    assert accounting.close().dropped == {"no_shouting.capitals": 1}
    version = transforms[1].key()["version"]
    assert version == "my-parts 1.0" if not before else version.startswith("b3:")


def test_a_filter_with_a_setting_nobody_knows(door: tuple[str, Path]) -> None:
    before, project = door
    with pytest.raises(UserError, match="max_capitals"):
        load_transforms([{before + "no_shouting": {"max_capital": 0.3}}], project)


def test_a_source(door: tuple[str, Path]) -> None:
    before, project = door
    (project / "notes.txt").write_text("first\n\nsecond\n")
    context = SourceContext(project, functools.partial(keyed_digest, b"k" * 32, "subject"))
    opened = open_source({"type": before + "Notes", "path": "notes.txt", "license": "MIT"}, context)
    first = opened.fingerprint()
    accounting = Accounting()
    documents = [each for batch in read_sources([opened], accounting) for each in batch]
    assert [(each.text, each.locator, each.license) for each in documents] == [
        ("first", "notes.txt:1", "MIT"),
        ("second", "notes.txt:3", "MIT"),
    ]
    assert [piece.source for piece in accounting.close().quarantined] == ["notes.txt:2"]
    (project / "notes.txt").write_text("third\n")
    assert opened.fingerprint() != first


def evaluation() -> Evaluation:
    items = tuple(Item(f"item-{number}", reference="a b c d") for number in range(4))
    return Evaluation("model", items, tuple(Output("word " * (number + 1)) for number in range(4)))


def test_a_metric(door: tuple[str, Path]) -> None:
    before, project = door
    metric = load_metric(before + "brevity", project)
    assert metric.needs == "answer"
    scores = evaluation().scores([metric], seed=1)
    assert scores["brevity"].value == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert scores["brevity"].low <= scores["brevity"].value <= scores["brevity"].high


def test_a_gate(door: tuple[str, Path], copied: Path) -> None:
    """Through the step that judges a release, in a project that has a corpus and a dataset."""
    before, outside = door
    if before:
        (copied / "my_parts.py").write_text((outside / "my_parts.py").read_text())
    name = before + "enough_items"
    with open_project(copied) as project, project.record.workspace.exclusive():
        record = project.record
        runs = {run.step: run for run in record.runs.find(status="done")}
        cleaned = Corpus(runs["prepare.clean"].outputs["corpus"], record.store)
        dataset = Dataset(runs["prepare.assemble"].outputs["dataset"], record.store)
        with Builder(EvaluationReport, record.store) as report:
            write_evaluation(report.path, evaluation(), [load_metric("token_f1")], seed=1)
            scored = report.commit()
        base = {"name": "none", "digest": "b3:" + "0" * 64, "license": "MIT", "origin": "test"}
        spec = ReleaseSpec("reviews", "classify", scored.digest, dataset.digest, base, "transformers")
        with Builder(Release, record.store) as bundle:
            (bundle.path / "release.json").write_text(json.dumps(spec.to_json()))
            release = bundle.commit()
        driver = Driver(record.runs, copied, seed=17)
        plugin = plugins.load("treadle.checks", name, copied)
        gates = [{name: {"at_least": 4}}, {name: {"at_least": 5}}]
        settings = {"names": ["model"], "gates": gates, "versions": [plugin.version] * 2}
        judged = driver.run(judge, release, (cleaned,), dataset, (scored,), **settings)
        results = judged.read_json("gates.json")
        assert [result["passed"] for result in results] == [True, False]
        assert results[1]["detail"] == "4 test items, 5 wanted"
        assert results[1]["figures"] == {"items": 4}
        with pytest.raises(UserError, match="at_least"):
            check(plugin.value, {"at_last": 5}, where=name, provided=("evidence",))


def test_an_engine(tmp_path: Path, clean_imports: None) -> None:
    install(tmp_path / "site")
    assert find_engine("echo", tmp_path).name == "echo"
    with BlockingEngine("echo", tmp_path) as engine:
        answers = engine.generate_all([GenerateRequest("one", (7, 8, 9), max_tokens=2), GenerateRequest("two", (5,))])
        assert answers == ["7 8 ", "5 "]
        assert [score.total for score in engine.score([([1], [2, 3])])] == [0.0]


def test_an_optimization(door: tuple[str, Path], tmp_path: Path) -> None:
    before, project = door
    way, version = optimization.load(before + "Halved", project), optimization.code_version(before + "Halved", project)
    assert "my-parts 1.0" in version if not before else "b3:" in version
    out = tmp_path / "out"
    out.mkdir()
    way.write(optimization.Material(write_model(tmp_path / "model"), tmp_path), out)
    assert find_engine("auto", out).name == way.engine
    with GgufFile(out / "model.gguf") as file:
        assert {info.kind for name, info in file.tensors.items() if "norm" not in name} == {1}  # F16


def test_an_engine_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="echo"):
        find_engine("echo", tmp_path)


def test_a_task_a_way_to_train_and_a_model_class(copied: Path, treadle: Treadle) -> None:
    """From data to an answer over HTTP, by an engine in its own process; with other code there is none."""
    (copied / "my_models.py").write_text("\n\n".join(MODELS))
    init = (
        "{architecture: bert, model: my_models:BagForSequenceClassification, size: 20K, context: 64, vocabulary: 400}"
    )
    develop = f"{{init: {init}, fit: my_models:head_alone, learning_rate: 0.5, max_length: 32}}"
    mine = ["--set", "task=my_models:POLARITY", "--set", f"develop={develop}"]
    done = treadle(copied, "develop", "--json", *mine)
    assert done.returncode == 0, done.stderr
    evaluations = json.loads(done.stdout)["evaluations"]
    assert set(evaluations) == {"model", "good"}
    assert set(evaluations["model"]) == {"accuracy", "f1_macro"}
    usual = [*mine[:3], f"develop={{init: {init}, max_length: 32, epochs: 1}}"]  # the task's own way to train
    done = treadle(copied, "develop", "--json", *usual)
    assert done.returncode == 0, done.stderr
    deployed = treadle(copied, "deploy", "--json", "--set", "deploy.smoke_requests=2", *mine)
    assert deployed.returncode == 0, deployed.stderr
    with (copied / "my_models.py").open("a") as file:
        file.write("\n# edited\n")
    with open_project(copied) as project, pytest.raises(UserError, match="made with another my_models:Bag"):
        release = Release(json.loads(deployed.stdout)["release"], project.record.store)
        own_model.make_known(release.path() / "model")


def test_a_filter_through_the_command_line(copied: Path, treadle: Treadle) -> None:
    """The project's own filter runs in the cycle, its drops are in the account, and editing it is a reason to run."""
    (copied / "my_parts.py").write_text("\n\n".join(SHOWN))
    steps = 'prepare.steps=[normalize, "my_parts:no_shouting", deduplicate]'
    done = treadle(copied, "prepare", "--json", "--set", steps)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dropped"] == {"no_shouting.capitals": 3}
    again = treadle(copied, "plan", "--until", "prepare", "--set", steps, "--json")
    assert {step["status"] for stage in json.loads(again.stdout)["stages"] for step in stage["steps"]} == {"cached"}
    with (copied / "my_parts.py").open("a") as file:
        file.write("\n# edited\n")
    planned = json.loads(treadle(copied, "plan", "--until", "prepare", "--set", steps, "--json").stdout)
    status = {step["step"]: step["status"] for stage in planned["stages"] for step in stage["steps"]}
    assert status["collect.gather"] == "cached"
    assert status["prepare.clean"] == "skipped"

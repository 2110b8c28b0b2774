"""A project's trainings in two processes: the same key and, but for rounding, the same losses as in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from small_project import Project, make_project
from treadle.core.errors import UserError
from treadle.evals.task import load_task
from treadle.project import open_project
from treadle.stages.develop.checking import check_trainings
from treadle.stages.develop.resuming import trainer_for
from treadle.stages.develop.settings import DevelopSettings

PRETRAIN = "  pretrain: {tokens: 8000, width: 64, batch: 4}\n  evaluate:"


def _runs(project: Project) -> dict[str, Any]:
    with open_project(project.folder) as opened:
        return {run.step: run for run in opened.record.runs.find() if run.status == "done"}


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path, base: Path) -> None:
    one, two = make_project(tmp_path / "one", base), make_project(tmp_path / "two", base)
    for project in (one, two):
        project.edit("  evaluate:", PRETRAIN)
    two.edit("develop:\n", "develop:\n  on: {torchrun: {processes: 2, strategy: fsdp2}}\n")
    one.call("develop")
    two.call("develop")
    alone, together = _runs(one), _runs(two)
    for step in ("develop.pretrain", "develop.train"):
        assert together[step].facts["tags"] == {"on": "torchrun: 2 processes, fsdp2"}
        assert together[step].metrics["loss_first"] == pytest.approx(alone[step].metrics["loss_first"], abs=1e-2)
        assert together[step].metrics["loss"] == pytest.approx(alone[step].metrics["loss"], abs=1e-2)
    assert together["develop.pretrain"].key == alone["develop.pretrain"].key
    two.edit("  on: {torchrun: {processes: 2, strategy: fsdp2}}\n", "")
    two.call("develop")
    assert _runs(two)["develop.train"].id == together["develop.train"].id


def test_where_it_trains_is_checked_before_anything_runs(tmp_path: Path, base: Path) -> None:
    project = make_project(tmp_path, base)
    project.edit("develop:\n", "develop:\n  on: {torchrun: {proceses: 2}}\n")
    said = project.call("plan", check=2).stderr
    assert "develop.on (torchrun): no setting 'proceses'; did you mean 'processes'?" in said
    with pytest.raises(UserError, match="cluster"):
        trainer_for("cluster")


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"fit": "mine:alone", "on": "torchrun"}, "develop.on: mine:alone trains in one process"),
        ({"fit": "mine:alone", "keep_best": "loss"}, "develop.keep_best: mine:alone cannot be judged under way"),
        ({"keep_best": "f1"}, "develop.keep_best: 'f1' is not of this training; expected one of loss"),
        ({"keep_best": "f1", "prefer": {"instead": True}}, "expected one of loss, accuracy, margin"),
        ({"evaluate": {"metrics": ["accuracy"]}}, "metric accuracy needs probabilities; a model for task chat"),
        ({"fit": "mine:alone", "method": "lora"}, "develop.method: mine:alone trains all weights and no adapters"),
        (
            {"method": "lora", "on": {"torchrun": {"strategy": "fsdp2"}}},
            "lora needs a strategy that keeps the model whole",
        ),
        ({"method": "lora", "distill": {"teacher": "model@v1"}}, "with distill.teacher a student alone is trained"),
        ({"fit": "mine:tagging"}, "develop.fit: mine:tagging is for task tag, not for chat"),
        ({"on": {"torchrun": {"strategy": "zero9"}}}, "develop.on (torchrun): strategy"),
        ({"on": {"torchrun": {"strategy": "zero2"}}}, "deepspeed is not installed; run: pip install"),
    ],
)
def test_a_training_that_cannot_be_is_said_before_anything_is_collected(
    tmp_path: Path, edits: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treadle.stages.develop.resuming.find_spec", lambda _name: None)
    (tmp_path / "mine.py").write_text(
        "def alone(base, out, examples, settings, on_step): ...\n"
        "def tagging(base, out, examples, settings, on_step): ...\n"
        "tagging.tasks = ('tag',)\n"
    )
    settings = DevelopSettings.model_validate({"base_model": "x", **edits})
    with pytest.raises(UserError) as refused:
        check_trainings(settings, load_task("chat"), tmp_path)
    assert words in str(refused.value)


def test_what_needs_the_whole_model_is_not_begun_where_it_is_cut(tmp_path: Path) -> None:
    cut: dict[str, Any] = {"base_model": "x", "on": {"torchrun": {"strategy": "fsdp2"}}}
    with pytest.raises(UserError, match=r"develop\.on: task embed needs a strategy that keeps the model whole"):
        check_trainings(DevelopSettings.model_validate(cut), load_task("embed"), tmp_path)
    with pytest.raises(UserError, match=r"develop\.prefer: .* needs a strategy that keeps the model whole; take ddp"):
        check_trainings(DevelopSettings.model_validate({**cut, "prefer": {}}), load_task("chat"), tmp_path)
    check_trainings(DevelopSettings.model_validate(cut), load_task("tag"), tmp_path)
    whole = {"base_model": "x", "on": {"torchrun": {"strategy": "ddp"}}}
    check_trainings(DevelopSettings.model_validate(whole), load_task("embed"), tmp_path)


def test_what_it_is_judged_by_under_way_is_known_before() -> None:
    for name, known in (("classify", "loss, accuracy, f1"), ("qa", "loss, accuracy"), ("translate", "loss")):
        wrong = DevelopSettings.model_validate({"base_model": "x", "keep_best": "acuracy"})
        with pytest.raises(UserError, match=f"'acuracy' is not of this training; expected one of {known}$"):
            check_trainings(wrong, load_task(name), Path())
        right = DevelopSettings.model_validate({"base_model": "x", "keep_best": known.split(", ")[-1]})
        check_trainings(right, load_task(name), Path())


def test_nothing_is_trained_that_could_not_be_judged(tmp_path: Path, base: Path) -> None:
    project = make_project(tmp_path, base)
    for split, setting, words in (
        ("{train: 1.0, validation: 0, test: 0}", "", "the test split has 0 examples, and a score needs two or more"),
        ("{train: 0.7, validation: 0, test: 0.3}", "keep_best=loss", "judge by the validation split, which is empty"),
    ):
        more = ["--set", f"develop.{setting}"] if setting else []
        said = project.call("develop", "--set", f"prepare.split={split}", *more, check=2).stderr
        assert words in said
    assert not [run for run in project.json("runs") if run["step"] == "develop.train"]


def test_every_task_of_ours_trains_adapters_and_one_of_your_own_where_it_says_so(tmp_path: Path) -> None:
    settings = DevelopSettings.model_validate({"base_model": "x", "method": "lora"})
    for name in ("chat", "classify", "tag", "qa", "embed", "translate", "summarize"):
        check_trainings(settings, load_task(name), tmp_path)
    silent = replace(load_task("classify"), fit=lambda *_: None)
    with pytest.raises(UserError, match=r"develop\.method: task classify trains all weights and no adapters"):
        check_trainings(settings, silent, tmp_path)
    pairs = DevelopSettings.model_validate({"base_model": "x", "method": "lora", "prefer": {}})
    check_trainings(pairs, silent, tmp_path)  # the pairs are learned by adapters
    nothing = {"init": {"architecture": "bert", "size": "2M"}, "method": "lora"}
    with pytest.raises(ValidationError, match="lora leaves random weights as they are"):
        DevelopSettings.model_validate(nothing)
    DevelopSettings.model_validate({**nothing, "pretrain": {"tokens": 1000, "width": 64}})

"""The second turn: corrections start it, are learned from, can be traced, and nobody can bend it alone."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from small_project import DEEDS, THINGS, Project
from treadle.core.driver import Silent
from treadle.core.ledger import now
from treadle.project import open_project
from treadle.record.interaction import Interaction, new_interaction_id
from treadle.record.report import Report
from treadle.stages.improve import CorrectionSettings, give_feedback
from treadle.stages.improve.corrections import chosen, found
from treadle.text.dataset import Dataset
from treadle.text.split import SIDES
from treadle.turning import begin_next

ROOT = Path(__file__).resolve().parent.parent.parent
ADVICE = (
    *("Hold it under warm water until the chalk is gone.", "Bring both parts to the desk on the first floor."),
    *("Turn the small wheel left, twice, then wait a minute.", "Write the number from its back on the blue form."),
    *("Ask the driver for a sack and tie it well.", "Keep it dry, away from windows, wrapped in old paper."),
    *("Unscrew four screws and lift the lid slowly.", "Send us a picture and we will call you tomorrow."),
    *("Rub it with oil every second winter.", "Charge over night with the cable that has a red plug."),
    *("Only the seller may open this one.", "Press nothing, it does that by itself each Sunday."),
)


def answered(
    project: Project, count: int, user: str = "customer", say: str = "", name: Callable[[int], str] | None = None
) -> list[str]:
    """Interactions as the server records them, with the champion's release, and questions of their own."""
    with open_project(project.folder) as opened:
        record = opened.record
        release = record.versions.served()
        assert release
        made = []
        for number in range(count):
            thing, deed = THINGS[number % len(THINGS)], DEEDS[number % len(DEEDS)]
            question = {"role": "user", "content": f"Where may I {deed} the {say} {thing} number {number}?"}
            row = Interaction(
                name(number) if name else new_interaction_id(), "req", now(), release, "helper@v1",
                "/v1/chat/completions", "ok", store=True, user=record.recorder.keyed(f"{user}-{number % 4}"),
                messages=(question,), answer="I do not know.",
            )  # fmt: skip
            record.recorder.interaction(row)
            made.append(row.id)
        return made


def correct(project: Project, interactions: list[str], texts: Any, user: str = "customer") -> None:
    """Corrections of these answers, as the CLI would give them."""
    with open_project(project.folder) as opened:
        for number, (interaction, text) in enumerate(zip(interactions, texts, strict=True)):
            give_feedback(opened.record, interaction, "correction", None, text, None, f"{user}-{number % 4}")


def learned(project: Project, ref: str) -> list[str]:
    """Names of the corrections among the documents of a version."""
    nodes = project.json("lineage", ref, "--limit", "0")["nodes"]
    return [node["label"] for node in nodes if node["label"].startswith("correction of")]


@pytest.fixture(scope="module")
def turned(built: tuple[Project, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Any]:
    """A project after its second turn, and what ``watch --once --json`` said."""
    folder = tmp_path_factory.mktemp("turned") / "copy"
    shutil.copytree(built[0].folder.parent, folder, symlinks=True)
    project = Project(folder / "project")
    # Fixed ids: they decide which corrections become test cases, and so how many are learned from.
    correct(project, answered(project, len(ADVICE), name=lambda number: f"int-01M84{number:021}"), ADVICE)
    return project, project.json("watch", "--once")


def test_what_is_said_is_documented(turned: tuple[Project, Any]) -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    example = json.loads(page.partition("## watch\n")[2].partition("```json\n")[2].partition("```")[0])
    assert turned[1].keys() == example.keys()


def test_corrections_start_the_next_turn_and_are_learned_from(turned: tuple[Project, Any]) -> None:
    project, said = turned
    assert said["ok"]
    assert said["due"] == [f"corrections {len(ADVICE)} >= 2"]
    status = project.json("status")
    assert status["champion"]["number"] == 2
    assert status["turn"]["number"] == 2
    assert status["turn"]["outcome"] == "promoted"
    assert status["turn"]["reasons"] == said["due"]
    names = learned(project, "model@v2")
    assert len(names) >= 2
    assert not learned(project, "model@v1")
    assert project.json("verify")["ok"]
    with open_project(project.folder) as opened:
        version = opened.record.versions.latest("dataset")
        assert version is not None
        examples = Dataset(version.digest, opened.record.store).examples("train")
    corrected = [each for each in examples if "feedback" in each.fields]
    assert len(corrected) >= 2  # what was wanted and what was given are a pair
    assert all(each.rejected[:-1] == each.messages[:-1] and each.rejected != each.messages for each in corrected)


def test_the_license_gate_counts_corrections_and_says_what_is_missing(
    turned: tuple[Project, Any], tmp_path: Path
) -> None:
    shutil.copytree(turned[0].folder.parent, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy" / "project")
    with open_project(project.folder) as opened:
        record = opened.record
        (judged,) = (
            run
            for run in record.runs.find(step="govern.judge", status="done")
            if run.inputs["release"] == record.versions.served()
        )
        licenses = Report(next(iter(judged.outputs.values())), record.store).read_json("licenses.json")
        dataset = Dataset(judged.inputs["dataset"], record.store)
        corrected = [each for side in SIDES for each in dataset.examples(side) if "feedback" in each.fields]
        taught = {name for each in corrected for name in each.documents}
    assert licenses["not recorded"] == len(taught) > 0
    assert sum(licenses.values()) >= len(set(dataset.document_ids()))
    refused = project.call("run", "--set", "govern.gates=[{license: {allow: [CC0-1.0, unknown]}}]", check=1)
    assert f"not recorded ({len(taught)} documents)" in refused.stdout
    assert "improve.corrections.license" in refused.stdout


def test_a_correction_leads_forward_to_the_model_that_learned_it(turned: tuple[Project, Any]) -> None:
    project, _ = turned
    name = learned(project, "model@v2")[0]
    down = project.json("lineage", "--down", f"doc:{name}")
    assert any(node["label"] == "model/helper@v2" for node in down["nodes"])
    assert not any(node["label"] == "model/helper@v1" for node in down["nodes"])


def test_the_standing_tests_stay_and_the_champion_is_met_on_them(turned: tuple[Project, Any]) -> None:
    _, said = turned
    ran = {(s["step"], s["status"]) for stage in said["turn"]["stages"] for s in stage["steps"]}
    assert ("develop.evaluate_base", "cached") in ran
    assert ("develop.evaluate_base", "done") not in ran
    assert ("collect.gather", "cached") in ran


def test_nothing_is_due_twice_and_everything_is_remembered(turned: tuple[Project, Any]) -> None:
    project, _ = turned
    again = project.json("watch", "--once")
    assert again["due"] == []
    assert again["turn"] is None
    result = project.json("run")
    assert {s["status"] for stage in result["stages"] for s in stage["steps"]} == {"cached"}
    assert project.json("status")["turn"]["number"] == 2


def test_rollback_stays_until_somebody_approves(built: tuple[Project, Any], turned: tuple[Project, Any]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(turned[0].folder.parent, Path(scratch) / "copy", symlinks=True)
        project = Project(Path(scratch) / "copy" / "project")
        assert project.json("rollback", "--reason", "rude") == {
            "what": "champion",
            "taken_back": "model/helper@v2",
            "champion": "model/helper@v1",
        }
        assert project.json("run", check=1)["ok"] is False
        assert project.json("status")["champion"]["number"] == 1
        assert "nothing" not in project.call("rollback", check=2).stderr
        assert project.json("approve", "model@v2")["outcome"] == "promoted"
        assert project.json("status")["champion"]["number"] == 2
        assert project.json("verify")["ok"]


def test_a_person_can_be_forgotten_with_their_corrections(turned: tuple[Project, Any], tmp_path: Any) -> None:
    shutil.copytree(turned[0].folder.parent, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy" / "project")
    before = set(learned(project, "model@v2"))
    theirs = {f"correction of int-01M84{number:021}" for number in range(1, len(ADVICE), 4)}
    assert before & theirs
    assert before - theirs
    found_and_done = project.json("forget", "customer-1")
    assert found_and_done["done"]
    assert found_and_done["rebuilt"] is True, found_and_done["why_not"]
    champion = project.json("status")["champion"]["ref"]
    after = set(learned(project, champion))
    assert after
    assert not after & theirs
    assert project.json("verify")["ok"]
    gone = [ADVICE[number].encode() for number in range(1, len(ADVICE), 4)]
    for path in (project.folder / ".treadle").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(text in data for text in gone), path


# -- who may say what


def set_aside(project: Project, **settings: Any) -> dict[str, int]:
    """How many corrections each rule takes out."""
    with open_project(project.folder) as opened:
        _, aside = chosen(found(opened.record, "9"), CorrectionSettings(**settings))
    rules: dict[str, int] = {}
    for each in aside:
        rules[each.rule] = rules.get(each.rule, 0) + 1
    return rules


def test_one_person_has_no_more_than_their_share(project: Project) -> None:
    ids = answered(project, 9, user="one")
    with open_project(project.folder) as opened:
        for number, interaction in enumerate(ids):
            give_feedback(opened.record, interaction, "correction", None, ADVICE[number], None, "one")
    assert set_aside(project) == {}
    assert set_aside(project, per_person=4) == {"corrections.per_person": 5}


def test_conflicts_floods_and_outliers_are_set_aside(project: Project) -> None:
    twice = answered(project, 1) + answered(project, 1)
    correct(project, twice, ["Left of the door.", "Right of the door."])
    flood = answered(project, 4, say="old")
    correct(project, flood, ["Buy a new one at example.com."] * 4)
    (long,) = answered(project, 1, say="new")
    correct(project, [long], ["word " * 900])
    assert set_aside(project) == {
        "corrections.conflict": 2,
        "corrections.same_answer": 4,
        "corrections.outlier": 1,
    }
    with open_project(project.folder) as opened:  # a reviewer settles it
        give_feedback(opened.record, twice[0], "correction", None, "In front of it.", None, "rita", source="console")
        kept, aside = chosen(found(opened.record, "9"), CorrectionSettings())
    assert [row.wanted for row in kept if row.interaction.id == twice[0]] == ["In front of it."]
    assert "corrections.superseded" in {each.rule for each in aside}


class Heard(Silent):
    """What stages say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_turn_says_what_was_set_aside(project: Project) -> None:
    correct(project, answered(project, 1) + answered(project, 1), ["Left of the door.", "Right of the door."])
    heard = Heard()
    with open_project(project.folder) as opened:
        begin_next(opened, ("asked for",), heard)
    assert heard.lines == ["2 set aside: 2 corrections.conflict; treadle console has the open ones under Review"]


def test_the_last_word_of_a_person_counts(project: Project) -> None:
    (interaction,) = answered(project, 1)
    correct(project, [interaction], ["First thought."])
    correct(project, [interaction], ["Second thought."])
    with open_project(project.folder) as opened:
        assert [row.wanted for row in found(opened.record, "9")] == ["Second thought."]


def test_what_is_not_stored_is_not_learned_from(project: Project) -> None:
    with open_project(project.folder) as opened:
        row = Interaction(
            new_interaction_id(), "req", "2026-11-23T00:00:00.000Z", "b3:0", "helper@v1", "/v1/chat/completions",
            "ok", store=False,
        )  # fmt: skip
        opened.record.recorder.interaction(row)
        give_feedback(opened.record, row.id, "correction", None, "Something.", None, None)
        assert list(found(opened.record, "9")) == []


# -- triggers


def due(project: Project) -> tuple[list[str], str]:
    """What is due, and what holds it back."""
    status = project.json("status")
    return status["due"], status["held_back"]


def test_a_promotion_that_is_asked_for_waits_and_holds_the_next_turn(project: Project) -> None:
    project.edit("promote: auto", "promote: ask")
    correct(project, answered(project, len(ADVICE)), ADVICE)
    said = project.json("watch", "--once")
    assert said["turn"]["ok"]
    status = project.json("status")
    assert (status["champion"]["number"], status["turn"]["outcome"]) == (1, "waiting")
    correct(project, answered(project, 3, say="blue"), ADVICE[:3])
    assert due(project) == (["corrections 3 >= 2"], "model/helper@v2 waits for approval")
    assert project.json("watch", "--once")["turn"] is None
    assert project.json("approve", "model@v2")["outcome"] == "promoted"
    assert due(project)[1] == ""


def test_a_turn_does_not_make_the_next_one_due_by_its_own_requests(project: Project) -> None:
    project.edit("{corrections: 2}", "{volume: 4}")  # as many as its smoke requests
    answered(project, 3)
    assert due(project)[0] == []
    answered(project, 1, say="red")
    said = project.json("watch", "--once")
    assert said["due"] == ["volume 4 >= 4 requests"]
    assert said["turn"]["ok"]
    assert due(project)[0] == []
    assert project.json("watch", "--once")["turn"] is None


def test_volume_counts_what_somebody_sent(project: Project) -> None:
    project.edit("{corrections: 2}", "{volume: 1}")
    (asked,) = answered(project, 1)
    others: tuple[dict[str, Any], ...] = (
        {"metadata": {"treadle": "smoke"}},
        {"origin": "shadow", "copy_of": asked},
        {"instead_of": asked},
        {"status": "failed"},
        {"origin": "import"},
    )
    with open_project(project.folder) as opened:
        recorder = opened.record.recorder
        row = recorder.find_interaction(asked)
        assert row is not None
        for other in others:
            recorder.interaction(replace(row, id=new_interaction_id(), **other))
    assert due(project)[0] == ["volume 3 >= 1 requests"]


@pytest.mark.slow
def test_rest_and_budget_hold_back(project: Project) -> None:
    project.edit("cooldown: 0s", "cooldown: 1h")
    correct(project, answered(project, 3), ADVICE[:3])
    project.json("watch", "--once")
    correct(project, answered(project, 3, say="red"), ADVICE[3:6])
    reasons, held_back = due(project)
    assert reasons == ["corrections 3 >= 2"]
    assert held_back.startswith("cooldown until")
    project.edit("cooldown: 1h", "cooldown: 0s")
    project.edit("turns: 100", "turns: 1")
    assert due(project)[1] == "the budget of 1 turns per 1d is used up"


@pytest.mark.slow
def test_a_failing_turn_is_told_once_and_tried_later(project: Project) -> None:
    project.edit("cooldown: 0s", "cooldown: 1h")
    correct(project, answered(project, 3), ADVICE[:3])
    failed = project.call("watch", "--once", "--set", "develop.learning_rate=0.99", "--json", check=None)
    status = project.json("status")
    assert failed.returncode in (1, 2)
    assert status["champion"]["number"] == 1
    assert status["turn"]["outcome"] in ("failed", "refused")
    assert project.json("watch", "--once")["turn"] is None  # rest first
    assert project.json("verify")["ok"]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("age: 0s", "age of the champion >= 0s"),
        ("volume: 3", "volume 5 >= 3 requests"),
        ("schedule: '* * * * *'", ""),
    ],
)
def test_other_rules(project: Project, rule: str, reason: str) -> None:
    answered(project, 5)
    project.edit("{corrections: 2}", "{" + rule + "}")
    reasons, _ = due(project)
    assert reasons == ([reason] if reason else reasons)
    project.edit(rule, "schedule: 'whenever'" if "schedule" in rule else rule)
    if "schedule" in rule:
        assert "cron" in project.call("status", check=2).stderr


def test_the_fresh_loop_begins_by_itself(fresh: Callable[[], Project]) -> None:
    project = fresh()
    said = project.json("watch", "--once")
    assert said["did"] == ["began turn 1: nothing has been promoted yet"]
    assert project.json("status")["champion"]["number"] == 1

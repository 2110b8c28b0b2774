"""Heads that are kept elsewhere: none is lost, and a history that was put back is noticed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from treadle.core.audit import Problem
from treadle.core.errors import Refused, UserError
from treadle.core.head import Head
from treadle.core.head_target import HeadTarget, head_target
from treadle.core.keys import Keys
from treadle.core.ledger import Fact
from treadle.core.publisher import Outside, Publisher, read
from treadle.core.workspace import Workspace

APPROVAL = Fact("approval", {"ref": "model/demo@v1", "decision": "approve", "actor": "k3:0", "note": None})


def git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with two Git repositories, one the other's remote."""
    for name, options in (("repository", ()), ("remote", ("--bare",)), ("pushing", ())):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "--quiet", *options)
    git(tmp_path / "pushing", "remote", "add", "origin", str(tmp_path / "remote"))
    return tmp_path


NAMES = ["file:heads.jsonl", "deep/heads.jsonl", "heads/", "git:repository", "git:pushing#origin"]


def found_at(target: HeadTarget) -> list[Head | str]:
    return list(target.heads())


def problems(workspace: Workspace, targets: Sequence[HeadTarget]) -> list[Problem]:
    outside = Publisher(workspace.ledger, workspace.keys, targets).outside()
    return [*workspace.ledger.audit(outside.heads).problems, *outside.problems]


@pytest.mark.parametrize("name", NAMES)
def test_heads_come_back_as_they_went(name: str, places: Path, tmp_path: Path) -> None:
    keys, target = Keys(tmp_path / "keys"), head_target(name, places)
    heads = [Head.signed(size, f"{size:064x}", keys) for size in (1, 5, 6, 200)]
    for head in heads:
        target.publish(head, keys.public)
        target.publish(head, keys.public)  # after a crash, once more
    assert sorted(found_at(target), key=lambda head: head.size) == heads  # type: ignore[union-attr]
    with pytest.raises(Refused, match="another head over 5 rows"):
        target.publish(Head.signed(5, "0" * 64, keys), keys.public)
    assert len(found_at(target)) == 4


def test_tags_disturb_nothing_in_the_repository(places: Path, tmp_path: Path) -> None:
    folder = places / "repository"
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-qm", "first")
    keys = Keys(tmp_path / "keys")
    head_target("git:repository", places).publish(Head.signed(7, "0" * 64, keys), keys.public)
    assert git(folder, "cat-file", "-t", "treadle-head-7").strip() == "tag"
    assert json.loads(git(folder, "cat-file", "-p", "treadle-head-7^{}"))["size"] == 7
    assert git(folder, "status", "--porcelain") == ""
    assert len(git(folder, "log", "--oneline", "--all").splitlines()) == 1
    described = subprocess.run(["git", "-C", folder, "describe", "--tags"], capture_output=True, text=True)
    assert described.returncode != 0  # a version is not described by it


def test_a_remote_keeps_what_was_deleted_here(places: Path, tmp_path: Path) -> None:
    keys, target = Keys(tmp_path / "keys"), head_target("git:pushing#origin", places)
    target.publish(Head.signed(7, "0" * 64, keys), keys.public)
    git(places / "pushing", "tag", "--delete", "treadle-head-7")
    assert [head.size for head in target.heads() if isinstance(head, Head)] == [7]


def test_a_line_that_was_cut_off_is_replaced(places: Path, tmp_path: Path) -> None:
    keys, target = Keys(tmp_path / "keys"), head_target("heads.jsonl", places)
    one, other = (Head.signed(size, "0" * 64, keys) for size in (1, 2))
    target.publish(one, keys.public)
    with (places / "heads.jsonl").open("ab") as file:
        file.write(other.encode(keys.public)[:50])
    assert found_at(target) == [one]
    target.publish(other, keys.public)
    assert found_at(target) == [one, other]
    shutil.copy(places / "heads.jsonl", places / "cut.jsonl")
    (places / "single.json").write_bytes(one.encode(keys.public))  # as head.json is: a line without an end
    single = head_target("single.json", places)
    single.publish(other, keys.public)
    assert found_at(single) == [one, other]


@pytest.mark.parametrize("name", ["s3://bucket/heads", "git:", "file:", "", "ftp:x"])
def test_other_places_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected file:PATH"):
        head_target(name, tmp_path)


@pytest.mark.parametrize("name", ["none.jsonl", "none/", "git:none", "git:plain", "git:repository#nowhere"])
def test_a_target_that_is_not_there_is_one_clear_line(name: str, places: Path, tmp_path: Path) -> None:
    (places / "plain").mkdir()
    with pytest.raises(UserError) as told:
        read(head_target(name, places), Outside())
    assert "\n" not in str(told.value)


def test_a_decision_is_published_and_nothing_else_is(places: Path) -> None:
    targets = [head_target(name, places) for name in NAMES]
    with Workspace(places / "store") as workspace:
        publisher = Publisher(workspace.ledger, workspace.keys, targets)
        workspace.released.append(publisher.run)
        with workspace.exclusive():
            workspace.ledger.append(Fact("note", {}))
        assert not (places / "heads.jsonl").exists()
        for number in range(3):
            with workspace.exclusive():
                workspace.ledger.append(APPROVAL, Fact("note", {"number": number}))
            with workspace.exclusive():
                pass
        for target in targets:
            assert [head.size for head in target.heads() if isinstance(head, Head)] == [4, 6, 8], target.name
        assert problems(workspace, targets) == []


def test_what_a_target_cannot_take_is_told_and_brought_later(places: Path, caplog: pytest.LogCaptureFixture) -> None:
    targets = [head_target("git:later", places), head_target("heads/", places)]
    for number in range(3):
        with Workspace(places / "store") as workspace:
            workspace.ledger.append(APPROVAL)
            publisher = Publisher(workspace.ledger, workspace.keys, targets)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                (failed,) = publisher.run()
                publisher.run()
            assert len(caplog.records) == 1
            assert ("a head waits" if not number else f"{number + 1} heads wait") in failed
            assert "the next command tries again" in failed
            assert problems(workspace, targets) == []  # nothing was promised there yet
    assert len(found_at(targets[1])) == 3
    (places / "later").mkdir()
    git(places / "later", "init", "--quiet")
    with Workspace(places / "store") as workspace:
        assert Publisher(workspace.ledger, workspace.keys, targets).run() == []
        assert len(found_at(targets[0])) == 3  # none was lost
        assert problems(workspace, targets) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_older_database_with_the_head_file_of_its_time_is_noticed(name: str, places: Path) -> None:
    target, root = head_target(name, places), places / "store"

    def work(count: int) -> None:
        for _ in range(count):
            with Workspace(root) as workspace:
                workspace.ledger.append(APPROVAL)
                assert Publisher(workspace.ledger, workspace.keys, [target]).run() == []

    work(2)
    shutil.copytree(root, places / "older")
    work(2)
    shutil.rmtree(root)
    shutil.copytree(places / "older", root)
    with Workspace(root) as workspace:
        assert workspace.ledger.verify() == []  # by itself it is a history that was once true
        found = problems(workspace, [target])
        assert [(each.kind, each.ref) for each in found] == [("head", name)] * 2
        assert "was signed over 5 rows, the ledger holds 3" in found[-1].detail
    with Workspace(root) as workspace:  # also when work goes on from there
        for _ in range(5):
            workspace.ledger.append(APPROVAL)
        failed = Publisher(workspace.ledger, workspace.keys, [target]).run()
        assert not failed or "not this history" in failed[0]
        details = {each.detail for each in problems(workspace, [target])}
        assert {
            "the first 4 rows are not those that were signed",
            "the first 5 rows are not those that were signed",
        } <= details


@pytest.mark.parametrize("name", ["heads.jsonl", "heads/", "git:repository"])
def test_what_was_published_and_is_gone_or_changed_is_named(name: str, places: Path) -> None:
    target = head_target(name, places)
    with Workspace(places / "store") as workspace:
        for _ in range(3):
            workspace.ledger.append(APPROVAL)
            Publisher(workspace.ledger, workspace.keys, [target]).run()
        if name.startswith("git"):
            git(places / "repository", "tag", "--delete", "treadle-head-3")
        elif name.endswith("/"):
            (places / "heads" / "head-000000000003.json").unlink()
        else:
            lines = (places / name).read_text().splitlines(keepends=True)
            (places / name).write_text(lines[0] + lines[2])
        (gone,) = problems(workspace, [target])
        assert gone.detail == "the head over 3 rows was published there, and is gone"
        shutil.rmtree(places / "repository")
        shutil.rmtree(places / "heads", ignore_errors=True)
        (places / "heads.jsonl").unlink(missing_ok=True)
        (gone,) = problems(workspace, [target])
        assert gone.detail.startswith("cannot be compared with: ")


def test_a_foreign_head_is_named(places: Path, tmp_path: Path) -> None:
    keys, target = Keys(tmp_path / "others"), head_target("heads.jsonl", places)
    target.publish(Head.signed(1, "0" * 64, keys), keys.public)
    (places / "heads.jsonl").write_bytes((places / "heads.jsonl").read_bytes() + b"what is this\n{}\n")
    with Workspace(places / "store") as workspace:
        found = [each.detail for each in problems(workspace, [target])]
    assert len(found) == 3
    assert "its signature is not this project's" in found
    assert any(detail.startswith("line 2 is not a signed head") for detail in found)

"""Publishes signed heads outside the project: whenever a decision was recorded, and never loses one.

Once rows of certain kinds have come, the present head is due at each target of the settings. It is written down in the
table ``head_deliveries`` first and struck off when the target has it, so what a target cannot take now is tried
again by the next command. ``verify`` compares what the targets hold with the ledger: an older database that was put
back together with the ``head.json`` of its time is not the history that was published.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from treadle.core.audit import Problem, Published
from treadle.core.errors import TreadleError, UserError
from treadle.core.head import Head
from treadle.core.head_target import HeadTarget, head_target
from treadle.core.keys import Keys
from treadle.core.ledger import Ledger
from treadle.core.workspace import Workspace

DECISIONS = ("turn.ended", "alias", "approval", "erasure", "restored")  # kinds of rows after which a head is published

_log = logging.getLogger(__name__)


@dataclass
class Outside:
    """What was found outside the project: heads to compare with, and what is wrong already."""

    heads: list[Published] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class Publisher:
    """Brings heads to the targets of the settings."""

    def __init__(self, ledger: Ledger, keys: Keys, targets: Sequence[HeadTarget]) -> None:
        self._ledger = ledger
        self._keys = keys
        self._targets = tuple(targets)
        self._told: set[str] = set()  # warnings are given once by a process

    def run(self) -> list[str]:
        """Deliver what is due; what could not be is warned of and returned, a line a target."""
        if not self._targets:
            return []
        try:
            self._note_due()
        except TreadleError as error:
            return [self._warn(f"heads of the ledger are not published: {error}")]
        failed = []
        for target in self._targets:
            try:
                self._deliver(target)
            except TreadleError as error:
                waiting = len(self._rows(target, delivered=0))
                heads = "a head waits" if waiting == 1 else f"{waiting} heads wait"
                failed.append(self._warn(f"{error}; {heads}, and the next command tries again"))
        return failed

    def _warn(self, line: str) -> str:
        if line not in self._told:
            self._told.add(line)
            _log.warning("%s", line)
        return line

    def _note_due(self) -> None:
        last = max((row.seq for row in map(self._ledger.last, DECISIONS) if row), default=0)
        for target in self._targets:
            if last > max((size for size, _, _ in self._rows(target)), default=0):
                head = self._ledger.head()
                if head.size in self._abandoned():  # a target keeps one head of a size: the next one tells as well
                    return
                with self._ledger.database.transaction() as cursor:
                    cursor.execute(
                        "INSERT INTO head_deliveries VALUES (?, ?, ?, ?, 0) ON CONFLICT (target, size) DO NOTHING",
                        (target.name, head.size, head.root, head.signature),
                    )

    def _abandoned(self) -> set[int]:
        """Sizes of heads that were published before a restore, of rows that it lost."""
        return {size for row in self._ledger.rows("restored") for size, _ in row.body["abandoned"]}

    def _deliver(self, target: HeadTarget) -> None:
        waiting = self._rows(target, delivered=0)
        if waiting:
            self._ledger.database.sync()  # what is published outlives a loss of power
        for row in waiting:
            head = Head(*row)
            target.publish(head, self._keys.public)
            with self._ledger.database.transaction() as cursor:
                sql = "UPDATE head_deliveries SET delivered = 1 WHERE target = ? AND size = ?"
                cursor.execute(sql, (target.name, head.size))

    def _rows(self, target: HeadTarget, delivered: int | None = None) -> list[tuple[int, str, str]]:
        sql = "SELECT size, root, signature FROM head_deliveries WHERE target = ?"
        given: tuple[object, ...] = (target.name,)
        if delivered is not None:
            sql, given = f"{sql} AND delivered = ?", (*given, delivered)
        return [
            (int(size), root, signature)
            for size, root, signature in self._ledger.database.query(sql + " ORDER BY size", given)
        ]

    def outside(self) -> Outside:
        """What the targets hold, to compare with. Those that were delivered have to be there."""
        found = Outside()
        for target in self._targets:
            delivered = [Head(*row) for row in self._rows(target, delivered=1)]
            before = len(found.heads)
            try:
                read(target, found)
            except UserError as error:
                if delivered:
                    found.problems.append(Problem("head", target.name, f"cannot be compared with: {error}"))
                continue
            there = {each.head for each in found.heads[before:]}
            for head in delivered:
                if head not in there:
                    detail = f"the head over {head.size} rows was published there, and is gone"
                    found.problems.append(Problem("head", target.name, detail))
        return found


def read(target: HeadTarget, found: Outside) -> None:
    """Add what a target holds; ``UserError`` when it cannot be read."""
    for head in target.heads():
        if isinstance(head, str):
            found.problems.append(Problem("head", target.name, head))
        else:
            found.heads.append(Published(target.name, head))


def read_named(name: str, folder: Path, found: Outside) -> None:
    """As ``read``, for a target that somebody names; ``UserError`` when there is nothing in it."""
    before = len(found.heads), len(found.problems)
    read(head_target(name, folder), found)
    if before == (len(found.heads), len(found.problems)):
        raise UserError(f"there is no head in {name}; treadle head --publish {name} writes one")


def largest(name: str, folder: Path) -> Head:
    """The head over the most rows that a target holds; ``UserError`` when there is none."""
    found = Outside()
    read_named(name, folder, found)
    if not found.heads:
        raise UserError(f"{name}: {found.problems[0].detail}; expected heads as treadle head --publish writes them")
    return max((each.head for each in found.heads), key=lambda head: head.size)


def show_head(workspace: Workspace, target: str | None, folder: Path) -> dict[str, object]:
    """The latest head, published at a target where one is named; the shape that ``treadle head --json`` promises."""
    head, public = workspace.ledger.head(), workspace.keys.public
    if target is not None:
        workspace.database.sync()  # what is published outlives a loss of power
        head_target(target, folder).publish(head, public)
    shown = {"size": head.size, "root": head.root, "signature": head.signature, "public_key": public}
    return {**shown, "published": target}

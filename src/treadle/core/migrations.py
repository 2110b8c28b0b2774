"""Databases of earlier formats, brought up to date when they are opened: one small step a number.

A backup is made first (``backups/before-format-...`` in the store). Steps change query tables, the tree's nodes and
state only, never the ledger's rows. A ledger that is damaged stays as it is, for ``verify`` to name.

To add a step: raise ``database.FORMAT``, write the function that leads from the number before, put it into ``STEPS``,
and keep a small store of the number before in ``tests/core/formats``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from treadle.core import backup, nodes, run_values
from treadle.core.backup import Source
from treadle.core.database import FORMAT, Cursor, Database
from treadle.core.errors import Corrupt

_log = logging.getLogger(__name__)


def migrate(source: Source) -> None:
    """Bring a database up to date; the caller keeps others from doing the same. ``UserError`` when no backup can be
    written, nothing is changed then."""
    database = source.database
    found = database.format = _format(database)  # somebody else may have done it meanwhile
    try:
        if found < FORMAT and database.query("SELECT 1 FROM ledger LIMIT 1"):
            backup.write(source, source.root / "backups" / f"before-format-{FORMAT}-{backup.stamp()}.zip")
        for number in range(found, FORMAT):
            ddl, step = STEPS[number]
            database.script(ddl)
            with database.transaction(sync=True) as cursor:
                step(cursor)
                cursor.execute("UPDATE meta SET value = ? WHERE name = 'format'", (str(number + 1),))
            database.format = number + 1
    except Corrupt as error:
        _log.warning("%s stays in format %s: %s", database.place, database.format, error)


def _format(database: Database) -> int:
    return int(database.query("SELECT value FROM meta WHERE name = 'format'")[0][0])


def _keep_the_tree(cursor: Cursor) -> None:
    """Nodes of the ledger's tree, which whoever appends has kept up to date since."""
    for size, frontier in cursor.execute("SELECT size, frontier FROM ledger_head WHERE id = 1").fetchall():
        if not nodes.make_anew(cursor, size, frontier):
            raise Corrupt("the rows of the ledger are not those of its head; run treadle verify")


def _from_1(cursor: Cursor) -> None:
    """Nodes of the ledger's tree, and the table that runs are searched by."""
    _keep_the_tree(cursor)
    try:
        run_values.make_anew(cursor)
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"a row of a run cannot be read ({error}); run treadle verify") from None


STEPS: dict[int, tuple[str, Callable[[Cursor], None]]] = {1: (nodes.SCHEMA + run_values.DDL, _from_1)}

"""``treadle lineage``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.record.lineage import Graph
from treadle.stages.track.walk import LIMIT
from treadle.stages.track.walk import lineage as walk

_WORDS = {"made_by": "made by", "given": "given", "similar": "similar"}


@click.command()
@click.argument("ref")
@click.option("--down", is_flag=True, help="Forward: what came of it, down to the answers.")
@click.option("--limit", type=click.IntRange(0), default=LIMIT, show_default=True, help="Nodes of a kind (0: all).")
@json_option
def lineage(ref: str, down: bool, limit: int, as_json: bool) -> int:
    """Follow REF back to its documents, or with --down forward to every answer.

    REF is int-..., run-..., b3:..., doc:NAME, model@v1, dataset@v1 or @champion. Three roles that are never mixed:
    made_by (exact), given (exact: context sent with the request), similar (likeness, not cause).

    \b
    Example:
      treadle lineage int-01K9...
      treadle lineage --down doc:json.dumps
    """
    with open_project(here()) as project:
        graph = walk(project.record, ref, down=down, limit=limit)
    if as_json:
        emit(graph.public())
    else:
        _show(graph)
    return 0 if graph.verified else 1


def _show(graph: Graph) -> None:
    root = graph.nodes[graph.root]
    say(f"{root.kind} {root.label}")
    for edge in graph.edges:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        say(f"  {_WORDS[edge.role]:<8} {source.kind} {source.label} <- {target.kind} {target.label}")
    for kind, count in graph.truncated.items():
        say(f"  ... and {count:,} more of kind {kind}; --limit 0 shows all")
    sound = "verified: every object on the way is what was recorded" + (", or was erased" if graph.erased else "")
    say(sound if graph.verified else "NOT verified: run treadle verify")

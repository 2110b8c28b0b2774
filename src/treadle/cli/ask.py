"""``treadle ask``."""

from __future__ import annotations

from itertools import chain

import click

from treadle.asking import Answer, find_release
from treadle.asking import ask as put
from treadle.asking import recorded as find_recorded
from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.record.lineage import Node


@click.command()
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION...")
@click.option("--release", help="A version, an alias or a digest; @champion by default.")
@click.option("--user", help="Who asks; only a keyed digest of it is kept.")
@click.option("--recorded", is_flag=True, help="Show the recorded answer where this release gave one before.")
@json_option
def ask(questions: tuple[str, ...], release: str | None, user: str | None, recorded: bool, as_json: bool) -> None:
    """Ask the deployed model, and see what its answer came from.

    Uses the server that runs; otherwise starts one for the purpose. The answer is recorded like any other.

    \b
    Example:
      treadle ask "What does json.dumps do?"
    """
    with open_project(here()) as project:
        chosen = find_release(project, release)
        known = {question: find_recorded(project, chosen, question) for question in questions} if recorded else {}
        fresh = [question for question in questions if known.get(question) is None]
        answers = []
        for answer in chain((answer for answer in known.values() if answer), put(project, chosen, fresh, user)):
            answers.append(answer.public())
            if not as_json:
                show(answer)
    if as_json:
        emit(answers[0] if len(answers) == 1 else answers)


def show(answer: Answer) -> None:
    """The answer, and the three things that are known of where it came from, kept apart."""
    nodes, graph = answer.graph.nodes, answer.graph
    say(f"question  {answer.question}")
    say(f"answer    {answer.text}")
    say(f"          id {answer.interaction}   release {answer.release[:11]}", dim=True)
    chain = [node.label for node in nodes.values() if node.kind in ("model", "dataset")]
    documents = [edge for edge in graph.edges if edge.role == "made_by" and nodes[edge.target].kind == "document"]
    count = len(documents) + graph.truncated.get("document", 0)
    verified = "exact, verified" if graph.verified else "NOT verified"
    named = [nodes[edge.target].label for edge in documents[:3]]
    such = f", such as {', '.join(named)}" if named else ""
    say(f"made by   {' <- '.join(chain)} <- {count:,} documents{such}   [{verified}]")
    given = [nodes[edge.target] for edge in graph.edges if edge.role == "given"]
    say(f"given     {_list(given) or 'no context was sent with it'}   [exact]")
    similar = [edge for edge in graph.edges if edge.role == "similar"]
    if not similar:
        say("similar   nothing close among the documents it was trained on   [likeness]")
    for edge in similar:
        label = graph.likeness.get(edge.target, nodes[edge.target].label)
        say(f"similar   {label}   [likeness, not cause]")


def _list(nodes: list[Node]) -> str:
    return ", ".join(node.label for node in nodes)

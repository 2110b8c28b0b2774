"""``treadle evaluate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from treadle.cli.live import watching
from treadle.cli.output import emit, here, json_option, say, say_who_is_waited_for, table
from treadle.core.errors import UserError
from treadle.cycle import STAGES
from treadle.evals.intervals import LEVEL, Comparison
from treadle.evaluating import Asked, Evaluated, evaluate_ref
from treadle.project import open_project


@click.command()
@click.argument("ref")
@click.option("--data", metavar="FILE", type=click.Path(path_type=Path), help="A file of your own items.")
@click.option("--subject", metavar="COLUMN", help="Of that file: whom an item is about, for erasures.")
@click.option("--dataset", metavar="REF", help="A dataset whose test split to take.  [default: the latest]")
@click.option("--metric", "metrics", metavar="NAME", multiple=True, help="One of the metrics, or module:function.")
@click.option("--task", metavar="TASK", help="A task: a YAML file, a name, or module:function.")
@click.option("--against", metavar="REF", help="Another model on the same items, compared pairwise.")
@click.option("--through", metavar="PROGRAM", help="Let lm-eval or inspect-ai do it, with a task of theirs.")
@click.option("--environment", metavar="DIR", type=click.Path(path_type=Path), help="Where that program is installed.")
@click.option("--judge", metavar="FILE", type=click.Path(path_type=Path), help="Who compares both models' answers.")
@click.option("--shadow", is_flag=True, help="Compare the copies that it answered as a shadow with what was shown.")
@click.option("--by", metavar="FIELD", help="The scores for each value of a field as well.")
@json_option
def evaluate(
    ref: str,
    data: Path | None,
    subject: str | None,
    dataset: str | None,
    metrics: tuple[str, ...],
    against: str | None,
    by: str | None,
    task: str | None,
    judge: Path | None,
    through: str | None,
    environment: Path | None,
    shadow: bool,
    as_json: bool,
) -> None:
    """Evaluate a model: scores with 95 % intervals, every item, answer and value kept as a run.

    REF is model@v1, @champion or b3:..., or a base model by name or folder. Items are the test split of the project's
    latest dataset, or of a file in the form that `prepare` reads. What was evaluated before is remembered.

    With --shadow nothing is asked: the answers that it gave to copies of requests (deploy.shadow) are set beside those
    that users were shown.

    \b
    Example:
      treadle evaluate @champion --against model@v1
      treadle evaluate model@v2 --data questions.jsonl --metric token_f1 --metric bleu
      treadle evaluate @champion --task tasks/capitals.yaml
      treadle evaluate @champion --through lm-eval --environment ~/lm-eval --task gsm8k
      treadle evaluate @challenger --shadow
    """
    if shadow:
        others = (data, subject, dataset, task, judge, through, environment, by)
        _shadow(ref, against, given=bool(metrics) or any(each is not None for each in others), as_json=as_json)
        return
    if through is not None or environment is not None:
        _through(
            ref, through, environment, task, given=bool(data or dataset or metrics or against or by), as_json=as_json
        )
        return
    if data is not None and dataset is not None:
        raise UserError("evaluate: expected --data or --dataset, not both")
    if subject is not None and data is None:
        raise UserError("evaluate: --subject names a column of --data FILE")
    if task is not None and (data is not None or dataset is not None):
        raise UserError("evaluate: --task says where its items come from; leave out --data and --dataset")
    asked = Asked(here() / data if data is not None else None, subject, dataset, metrics, by, task)
    if judge is not None:
        asked = replace(asked, judge=here() / judge)
    with open_project(here()) as project, project.record.workspace.exclusive(say_who_is_waited_for):
        if as_json:
            emit(evaluate_ref(project, ref, asked, against).public())
            return
        with watching(STAGES, quiet=False) as listener:
            found = evaluate_ref(project, ref, asked, against, listener)
        for line in _lines(found):
            say(line)


def _through(
    ref: str, program: str | None, environment: Path | None, task: str | None, *, given: bool, as_json: bool
) -> None:
    from treadle.evaluating_through import evaluate_release

    if program is None or environment is None or task is None or given:
        raise UserError("evaluate --through PROGRAM needs --environment DIR and --task, and nothing else")
    with open_project(here()) as project, project.record.workspace.exclusive(say_who_is_waited_for):
        where = here() / environment
        if as_json:
            emit(evaluate_release(project, ref, program, where, task))
            return
        with watching(STAGES, quiet=False) as listener:
            found = evaluate_release(project, ref, program, where, task, listener)
        tool = found["program"]
        say(f"{ref} by {tool['name']} {tool['version']} on {task}; every answer is in {found['evaluation'][:11]}")
        for line in table([[name, _interval(score)] for name, score in found["metrics"].items()]):
            say(line)


def _shadow(ref: str, against: str | None, *, given: bool, as_json: bool) -> None:
    from treadle.evaluating_shadow import compare_shadow

    if given:
        raise UserError("evaluate --shadow goes with --against and --json, and nothing else")
    with open_project(here()) as project:
        found = compare_shadow(project, ref, against)
    if as_json:
        emit(found.public())
        return
    alone = f"; {found.alone:,} more have none beside them" if found.alone else ""
    say(f"{ref} on {found.pairs:,} copies, each beside the answer that was shown{alone}")
    if found.same is not None:
        say(f"the same text in {_interval(found.same.to_json())} of {found.same.n:,}")
    rows = [["", "pairs", "shadow", "shown", "difference", f"[{LEVEL:.0%} interval]", ""]]
    for name, each in found.figures.items():
        sure = f"[{each.low:+.3g}, {each.high:+.3g}]"
        verdict = "not decided" if not each.decided else "more" if each.difference > 0 else "less"
        figures = [f"{value:.3g}" for value in (each.shadow, each.shown)]
        rows.append([name, f"{each.n:,}", *figures, f"{each.difference:+.3g}", sure, verdict])
    for line in table(rows, right=(1, 2, 3, 4)):
        say(line)


def _lines(found: Evaluated) -> list[str]:
    items, kept = found.items.counts()["test"], found.report.digest[:11]
    what = f"{found.task['name']} v{found.task['version']}" if found.task else found.items.digest[:11]
    lines = [f"{found.subject.ref} on {items:,} items of {what}; every answer is in {kept}"]
    if found.rows is not None and found.rows.losses():
        lines.append(f"of {found.rows.read:,} rows; left out: {found.rows.losses()}")
    if found.seen:
        lines.append(f"{found.seen:,} of them, or nearly the same, it was fine-tuned on: their scores say little")
    scores = [("all", found.report.scores())]
    if found.unseen:
        scores.append(("not seen in training", {name: each.to_json() for name, each in found.unseen.items()}))
    scores += [(value, {name: each.to_json() for name, each in part.items()}) for value, part in found.slices.items()]
    metrics = list(scores[0][1])
    rows = [["[95 % interval]", "items", *metrics]]
    for name, part in scores:
        rows.append([name, f"{next(iter(part.values()))['n']:,}", *(_interval(part[metric]) for metric in metrics)])
    lines += table(rows)
    if found.against is not None:
        other, _, compared = found.against
        lines += [f"{metric}: {_told(each, other.ref)}" for metric, each in compared.items()]
    if found.judged is not None:
        lines += _verdict(found.judged)
    return lines


def _verdict(judged: dict[str, Any]) -> list[str]:
    said = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(judged["verdicts"].items()))
    lines = [f"judge {judged['judge']['template']}: wins {_interval(judged['metrics']['win_rate'])} ({said})"]
    if (people := judged.get("people")) is not None:
        kappa, agreement = people["metrics"]["kappa"], people["metrics"]["agreement"]
        lines.append(
            f"of {kappa['n']:,} choices of people it makes {_interval(agreement)}, kappa {_interval(kappa)};"
            f" {people['unparsed']:,} replies could not be read, {people['swayed']:,} followed the place"
        )
    return lines


def _interval(score: dict[str, Any]) -> str:
    return f"{score['value']:.3g} [{score['low']:.3g}, {score['high']:.3g}]"


def _told(each: Comparison, other: str) -> str:
    verdict = "not decided" if not each.decided else "better" if each.wins else "worse"
    return (
        f"{each.difference:+.3g} [{each.low:+.3g}, {each.high:+.3g}] against {other}, {verdict}"
        f" ({each.better:,} items better, {each.worse:,} worse of {each.n:,})"
    )

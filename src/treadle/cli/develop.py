"""``treadle develop``: the third stage, or what it will take."""

from __future__ import annotations

import click

from treadle.cli.cycle import run_turn
from treadle.cli.number import Number
from treadle.cli.output import emit, here, json_option, say, set_option
from treadle.core.errors import UserError
from treadle.estimating import estimate as estimate_of
from treadle.project import open_project


@click.command()
@click.option("--estimate", is_flag=True, help="Say what training will take, and run nothing.")
@click.option("--price", type=Number(min=0), metavar="PER_HOUR", help="Of this machine, for --estimate.")
@set_option
@json_option
def develop(estimate: bool, price: float | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Train, and evaluate against the baselines, with 95 % intervals.

    Runs the cycle as far as this stage; steps that are remembered cost nothing. With --estimate, parameters, tokens,
    memory and time are told instead, and with --price the cost; a few steps are timed and nothing is trained.

    \b
    Example:
      treadle develop --json
      treadle develop --estimate --price 2.5
    """
    if price is not None and not estimate:
        raise UserError("--price belongs to --estimate; give both, or neither")
    with open_project(here(), overrides) as project:
        if estimate:
            found = estimate_of(project, price=price)
            public, lines, ok = found.public(), found.lines(), found.fits
        else:
            this = run_turn(project, "develop", as_json=as_json)
            public, lines, ok = this.developed.public(), [], this.ok
    if as_json:
        emit(public)
    else:
        for line in lines:
            say(f"develop   {line}")
    return 0 if ok else 1

"""``treadle keys``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from treadle.cli.output import emit, here, json_option, say, table
from treadle.core.digest import is_digest
from treadle.core.duration import parse_seconds
from treadle.core.errors import UserError, nearest
from treadle.project import File, open_project
from treadle.record.api_key import ENDPOINTS, NANO, ApiKey, Limit, Rules
from treadle.record.api_key_use import Used, used

_DEFAULT = "default"  # the id of the key that TREADLE_API_KEY names
_NOTHING = Used()


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def keys(context: click.Context, as_json: bool) -> None:
    """API keys of the server: who may ask what, until when, and how much. By itself it lists them.

    Once a project has a key, every request to its server needs one. Running servers follow within a second.

    \b
    Example:
      treadle keys create billing --tokens 100000/day --expires 90d
      treadle keys list
      treadle keys revoke billing
    """
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@keys.command()
@click.argument("name")
@click.option("--scope", metavar="WHAT,...", help=f"Only for these: {', '.join(ENDPOINTS)}. Metrics must be named.")
@click.option("--model", "models", multiple=True, metavar="M", help="Only for NAME, NAME@vN, NAME@alias or a digest.")
@click.option("--expires", metavar="TIME", help="How long it is good: 30d, 12h.")
@click.option("--tokens", multiple=True, metavar="N[/day|/month]", help="At most so many tokens, read and written.")
@click.option("--money", multiple=True, metavar="X[/day|/month]", help="In the currency of deploy.price.")
@click.option("--requests-per-minute", type=click.IntRange(1), metavar="N", help="Requests a minute.")
@click.option("--tokens-per-minute", type=click.IntRange(1), metavar="N", help="Tokens a minute.")
@json_option
def create(
    name: str,
    scope: str | None,
    models: tuple[str, ...],
    expires: str | None,
    tokens: tuple[str, ...],
    money: tuple[str, ...],
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    as_json: bool,
) -> None:
    """Make a key, and show it this once: what is kept is a hash.

    --tokens and --money may be given for the total, the day and the month (UTC). A budget that is used up is refused
    with 429 and insufficient_quota, a rate with rate_limit_exceeded and Retry-After.

    \b
    Example:
      treadle keys create billing --tokens 100000/day --requests-per-minute 60
      treadle keys create search --scope embeddings,models --expires 30d
    """
    limits = [Limit.parse("tokens", text) for text in tokens] + [Limit.parse("money", text) for text in money]
    if requests_per_minute is not None:
        limits.append(Limit("requests", requests_per_minute, "minute"))
    if tokens_per_minute is not None:
        limits.append(Limit("tokens", tokens_per_minute, "minute"))
    wanted = tuple(dict.fromkeys(each.strip() for each in (scope or "").split(",") if each.strip()))
    if scope is not None and not wanted:
        raise UserError(f"--scope: expected some of {', '.join(ENDPOINTS)}")
    rules = Rules(wanted, models, tuple(limits))
    with open_project(here()) as project:
        record = project.record
        _warn(project.file, rules)
        key, secret = record.api_keys.create(name, rules, seconds=_seconds(expires), actor=record.runs.keyed_actor())
    if as_json:
        emit({**_public(key, _NOTHING), "key": secret})
        return
    say(secret)
    say(f"{key.id} ({name}): {_rules(key)}. This is the only time that the key is shown.")


def _warn(file: File, rules: Rules) -> None:
    """Of what the key could not be used for today: it may be meant for later."""
    if any(limit.what == "money" for limit in rules.limits) and file.deploy.price is None:
        click.echo("warning: without deploy.price in treadle.yaml every request with this key is refused", err=True)
    for model in rules.models:
        base = model.partition("@")[0]
        if not is_digest(model) and base != file.name and not file.deploy.also_serve:
            click.echo(f"warning: no model is called {base!r} here;{nearest(base, (file.name,))}", err=True)


@keys.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List keys, with what each has used; servers report that every second.

    \b
    Example:
      treadle keys list --json
    """
    _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    with open_project(here()) as project:
        record = project.record
        found, spent = record.api_keys.all(), used(record.workspace.database)
        now = record.workspace.database.clock()
    if as_json:
        listed = [{**_public(key, spent.get(key.id, _NOTHING)), "state": key.ended(now) or "good"} for key in found]
        default = {"id": _DEFAULT, "name": _DEFAULT, "used": _used(spent[_DEFAULT])} if _DEFAULT in spent else None
        emit([*listed, *([default] if default else [])])
        return
    rows = [["id", "name", "state", "requests", "tokens", "money", "rules"]]
    rows += [
        [key.id, key.name, key.ended(now) or "good", *_figures(spent.get(key.id, _NOTHING)), _rules(key)]
        for key in found
    ]
    if _DEFAULT in spent:
        rows.append([_DEFAULT, _DEFAULT, "", *_figures(spent[_DEFAULT]), "TREADLE_API_KEY: everything"])
    if len(rows) == 1:
        say("no keys; make one with: treadle keys create NAME")
        return
    for line in table(rows, right=(3, 4, 5)):
        say(line)


@keys.command()
@click.argument("key")
@json_option
def revoke(key: str, as_json: bool) -> None:
    """End a key, by its id or name. Requests under way with it are ended too, on every server within a second.

    \b
    Example:
      treadle keys revoke billing
    """
    with open_project(here()) as project:
        record = project.record
        found = record.api_keys.revoke(key, actor=record.runs.keyed_actor())
        spent = used(record.workspace.database).get(found.id, _NOTHING)
    if as_json:
        emit({**_public(found, spent), "state": "revoked"})
    else:
        say(f"{found.id} ({found.name}) is revoked")


def _seconds(expires: str | None) -> float | None:
    try:
        return None if expires is None else parse_seconds(expires)
    except ValueError as error:
        raise UserError(f"--expires {expires}: {error}") from None


def _public(key: ApiKey, spent: Used) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "created": _time(key.created),
        "expires": _time(key.expires),
        "revoked": _time(key.revoked),
        "scope": list(key.rules.scope),
        "models": list(key.rules.models),
        "limits": [
            {"what": each.what, "most": each.most / NANO if each.what == "money" else each.most, "per": each.per}
            for each in key.rules.limits
        ],
        "used": _used(spent),
    }


def _used(spent: Used) -> dict[str, float]:
    return {"requests": spent.requests, "tokens": spent.tokens, "money": spent.money / NANO}


def _figures(spent: Used) -> list[str]:
    return [f"{spent.requests:,}", f"{spent.tokens:,}", f"{spent.money / NANO:.4f}" if spent.money else "-"]


def _rules(key: ApiKey) -> str:
    said = [f"for {', '.join(key.rules.scope)}" if key.rules.scope else "for everything but metrics"]
    said += [f"of {', '.join(key.rules.models)}"] if key.rules.models else []
    said += [f"at most {limit}" for limit in key.rules.limits]
    said += [f"until {_time(key.expires)}"] if key.expires is not None else []
    return ", ".join(said)


def _time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

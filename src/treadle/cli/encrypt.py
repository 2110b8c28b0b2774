"""``treadle encrypt``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say, say_who_is_waited_for
from treadle.core.encrypting import encrypt as recode
from treadle.project import open_project
from treadle.record.exchange import encrypt as recode_at


@click.command()
@click.option("--off", is_flag=True, help="Decrypt instead; then take `encryption` out of treadle.yaml.")
@click.option("--remote", metavar="REMOTE", help="Of what treadle push sent there, and not of the store.")
@json_option
def encrypt(off: bool, remote: str | None, as_json: bool) -> int:
    """Encrypt what the store holds in the plain, or under an older key than the first.

    The key is the one that `encryption` in treadle.yaml names: ${env:NAME}, or a file that only you can read. It
    holds one or more keys, the newest first, each 32 bytes in hexadecimal or base64: the first encrypts, all decrypt.
    To change keys, put a new one before the old, call this, then take the old one away. Digests do not change. Killed
    anywhere, the same command goes on. Exits 1 when something is damaged; it stays as it is.

    \b
    Example:
      treadle encrypt
      treadle encrypt --off
    """
    with open_project(here()) as project, project.record.workspace.exclusive(say_who_is_waited_for):
        if remote is None:
            done = recode(project.record.store, off=off)
        else:
            done = recode_at(project.record, project.file.remotes.get(remote, remote), project.folder, off=off)
    if as_json:
        emit(done.public())
        return 1 if done.problems else 0
    for digest, detail in sorted(done.problems.items())[:50]:
        say(f"PROBLEM  {digest}: {detail}")
    verb = "decrypted" if off else f"encrypted under the key {done.key}"
    say(f"{verb}: {done.objects:,} objects, {done.bytes / 1e6:,.1f} MB; {len(done.problems):,} problems")
    return 1 if done.problems else 0

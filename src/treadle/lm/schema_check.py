"""Whether a JSON Schema can be kept to, found out in a process of its own.

There are short schemas that nobody can take apart in any time (a few patterns that must all hold at once will do), and
what takes them apart cannot be interrupted. In the engine's worker, everybody would wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import OrderedDict

from treadle.core.errors import UserError

_SECONDS = 3  # of a processor
_WAIT = 20.0  # seconds; on a busy machine it may take a while to get those
_BYTES = 4 << 30  # of address space
_AT_ONCE = 2
_KNOWN = 256  # schemas that are remembered
_REFUSED = 9  # exit code


class SchemaChecks:
    """Of one engine; used in one event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._known: OrderedDict[str, str | None] = OrderedDict()

    async def check(self, schema: str) -> None:
        """``UserError`` for a schema that cannot be kept to."""
        if schema not in self._known:
            async with self._turns:
                self._known[schema] = await _refusal(schema)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        if (said := self._known.get(schema)) is not None:
            raise UserError(said)


async def _refusal(schema: str) -> str | None:
    """What speaks against it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "treadle.lm.schema_check",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_WAIT):
            said, _ = await process.communicate(schema.encode())
    except TimeoutError:
        said = b""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == _REFUSED:
        return said.decode(errors="replace").strip()
    if process.returncode in (0, 1):  # 1: it cannot be looked at here, and the engine says what it thinks
        return None
    return "response_format: this schema takes too long to take apart; use fewer patterns at once"


def main() -> None:
    """Look at the schema on standard input."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(5)
    from treadle.lm.schema_mask import grammar_of

    try:
        grammar_of(sys.stdin.read(), None)
    except UserError as error:
        sys.stdout.write(str(error))
        sys.exit(_REFUSED)


if __name__ == "__main__":
    main()

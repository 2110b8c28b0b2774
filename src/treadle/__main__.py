"""``python -m treadle`` and the ``treadle`` command."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        # Imported in here: an interrupt while modules are being loaded is one like any other.
        from treadle.cli.main import main as run

        code = run()
    except KeyboardInterrupt:  # a second one, or one while the first was being told
        code = INTERRUPTED
    if code == INTERRUPTED:
        # Where the interrupt came out of code that a library runs from a string, CPython remembers it as unhandled
        # and ends the process by the signal, whatever is asked for here. Running any string makes it forget.
        exec("")  # noqa: S102
    sys.exit(code)


if __name__ == "__main__":
    main()

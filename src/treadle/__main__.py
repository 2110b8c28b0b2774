"""``python -m treadle`` and the ``treadle`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        # Imported in here: an interrupt while modules are being loaded is one like any other.
        from treadle.cli.main import main as run

        sys.exit(run())
    except KeyboardInterrupt:  # a second one, or one while the first was being told
        sys.exit(130)


if __name__ == "__main__":
    main()

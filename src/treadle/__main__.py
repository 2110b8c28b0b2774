"""``python -m treadle`` and the ``treadle`` command."""

from __future__ import annotations

import sys

from treadle.cli.main import main as _main


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_main())


if __name__ == "__main__":
    main()

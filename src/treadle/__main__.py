"""``python -m treadle`` and the ``treadle`` command."""

from __future__ import annotations

import sys

from treadle.cli.main import main as _main


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        sys.exit(_main())
    except KeyboardInterrupt:  # a second one, or one while the first was being told
        sys.exit(130)


if __name__ == "__main__":
    main()

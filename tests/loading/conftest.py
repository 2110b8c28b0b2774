"""The toy server, also for the load tool."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "serve"))

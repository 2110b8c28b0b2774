#!/usr/bin/env bash
# Run the tests on all cores; arguments go to pytest. Debian packages that tests want are installed when we are root.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m pytest -n "${TREADLE_TEST_WORKERS:-auto}" --dist loadgroup "$@"

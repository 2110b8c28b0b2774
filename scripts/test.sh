#!/usr/bin/env bash
# Run the tests on all cores; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
# Two workers on two cores: a thread each, and none that spins while it waits for the other.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
exec .venv/bin/python -m pytest -n "${TREADLE_TEST_WORKERS:-auto}" --dist loadgroup --durations=30 "$@"

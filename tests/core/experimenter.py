"""Another process with a run of its own code: what the tests start, and kill.

experimenter.py FOLDER NAME COUNT     log COUNT points, printing each once it is logged; then finish
experimenter.py FOLDER NAME 0         log for ever
"""

from __future__ import annotations

import itertools
import sys

import treadle

if __name__ == "__main__":
    folder, name, count = sys.argv[1:]
    with treadle.start_run(name, params={"lr": 0.1}, folder=folder, system=None) as run:
        print(run.id, flush=True)
        for number in range(int(count)) if int(count) else itertools.count():
            run.log(number, loss=1 / (number + 1))
            print(number, flush=True)

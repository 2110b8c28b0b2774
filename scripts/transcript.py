"""Put what ``make demo`` printed into the README: ``make demo | tee build/demo.log; python scripts/transcript.py``.

The lines stay as a terminal leaves them: without escape codes, without what only tells how far a step is (a bar that is
drawn over there, a line in a log), and without the path of this checkout.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- transcript:begin -->", "<!-- transcript:end -->"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WIDEST = 360  # columns; a longer line is cut with an ellipsis
_MOST = 160  # lines
_PROGRESS = re.compile(r"[a-z]+ +[a-z_]+\.[a-z_]+ [\d,]+/[\d,]+ ")


def clean(log: str, root: Path = ROOT) -> list[str]:
    """The lines of a log as a terminal would have left them."""
    lines = []
    for line in _ESCAPES.sub("", log).split("\n"):
        shown = line.rstrip("\r").rpartition("\r")[2].rstrip().replace(f"{root}/", "").replace("```", "'''")
        if _PROGRESS.match(shown):
            continue
        lines.append(shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def fill(page: str, lines: list[str]) -> str:
    """The page with the transcript between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    block = "\n".join(["```text", "$ make demo", *lines, "```"])
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Fill the README from a log; exit code 2 and one line when that cannot be done."""
    log = Path(arguments[0]) if arguments else ROOT / "build" / "demo.log"
    try:
        lines = clean(log.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        sys.stderr.write(f"{log}: {error.strerror}; make it with: make demo | tee build/demo.log\n")
        return 2
    if not lines or len(lines) > _MOST:
        sys.stderr.write(f"{log} has {len(lines)} lines; expected 1 to {_MOST}, what `make demo` prints\n")
        return 2
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), lines), encoding="utf-8")
    sys.stdout.write(f"README.md: {len(lines)} lines from {log}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

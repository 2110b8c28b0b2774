"""Pictures of the console for the docs: ``python scripts/screenshots.py PROJECT [FOLDER]``, by default docs/images.

Starts the console of a project, looks at it in Chromium in light and in dark, and stores what is seen. Nothing in the
project is changed but that somebody looked.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
WINDOW = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
COLORS = 256  # of a picture; text on plain ground needs no more


@contextmanager
def console(project: Path) -> Iterator[str]:
    """A link into the console of a project, which ends afterwards."""
    command = [sys.executable, "-m", "treadle", "-C", str(project), "console", "--port", "0", "--as", "ann", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            sys.exit(f"the console of {project} did not start")
        yield json.loads(line)["links"]["ann"]
    finally:
        server.terminate()
        server.wait(30)


def places(page: Page, base: str) -> dict[str, str]:
    """What is looked at: pages by the names of their pictures, with the most telling of each kind."""

    def view(path: str) -> Any:
        answer = page.request.get(base + path, headers={"Accept": "application/json"})
        if not answer.ok:
            sys.exit(f"{path}: {answer.status} {answer.text()[:200]}")
        return answer.json()

    rows = [row for rating in ("corrected", "rated", "") for row in view(f"/interactions?rating={rating}")["rows"]]
    if not rows:
        sys.exit("the project has no answers yet; ask it something first")
    answer = rows[0]["row"]["id"]
    waiting, turns = view("/approvals")["waiting"], view("/")["in_force"]
    number = waiting[0]["number"] if waiting else int(turns[0]["ref"].rpartition("v")[2])
    return {
        "status": "/",
        "runs": "/runs",
        "interaction": f"/interactions/{answer}",
        "lineage": f"/lineage?ref={answer}",
        "review": "/review",
        "approvals": f"/approvals/{number}",
    }


def save(picture: bytes, path: Path) -> None:
    """Store a picture with few colors, none of them mixed from dots."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    small = image.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def main(project: Path, folder: Path) -> None:
    """Take all pictures."""
    chromium = shutil.which("chromium") or sys.exit("Chromium is needed: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    folder.mkdir(parents=True, exist_ok=True)
    with console(project.resolve()) as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport=WINDOW, reduced_motion="reduce")
        page.goto(link)
        page.wait_for_selector("nav")
        base = link.partition("/enter")[0]
        found = places(page, base)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for name, path in found.items():
                page.goto(base + path)
                save(page.screenshot(), folder / f"console-{name}-{scheme}.png")
        cookies = page.context.storage_state()
        phone = browser.new_page(viewport=PHONE, device_scale_factor=2, reduced_motion="reduce", storage_state=cookies)
        phone.goto(base + found["status"])
        save(phone.screenshot(), folder / "console-status-phone.png")
        browser.close()
    total = sum(path.stat().st_size for path in folder.glob("console-*.png"))
    sys.stdout.write(f"{len(list(folder.glob('console-*.png')))} pictures, {total / 1000:,.0f} kB in {folder}\n")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else ROOT / "docs" / "images")

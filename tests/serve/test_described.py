"""What /openapi.json says, held against the server by schemathesis: every answer is as described, none is a 500."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_server import Served

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,"
    "missing_required_header"
)
# Random names would only ever meet a 404: the description is asked about what there is.
THERE_IS = {"model": "docs-assistant", "version": "1", "label": "champion"}


@pytest.mark.slow
@pytest.mark.parametrize("asking", ["chat", "classify", "embed", "tag", "extract"])
def test_no_request_finds_the_description_untrue(start: Callable[..., Served], tmp_path: Path, asking: str) -> None:
    served = start(release={"task": asking, "asking": asking}, key="sesame")
    described: dict[str, Any] = served.http.get("/openapi.json").json()
    for methods in described["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = {"enum": [THERE_IS[parameter["name"]]]}
    (tmp_path / "openapi.json").write_text(json.dumps(described))
    command = [
        Path(sys.executable).parent / "schemathesis", "run", "openapi.json", "--url", served.url, "--checks", CHECKS,
        "--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--seed", "1",
        "--header", "authorization: Bearer sesame",
        "--continue-on-failure", "--suppress-health-check", "all", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert len(served.rows) > 20  # what fits the description does reach the engine
    assert served.http.get("/health/ready").status_code == 200

"""Notebooks are read as their cells, whatever the format's number, and refused where they are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.text.readers.notebook import read
from treadle.text.readers.piece import Documents, UnreadableError

CODE = {"cell_type": "code", "source": ["x = '```'\n", "x"], "outputs": [{"text": "secret"}]}


@pytest.mark.parametrize(
    "notebook",
    [
        {"cells": [{"cell_type": "markdown", "source": "# A\n"}, CODE, "odd"],
         "metadata": {"kernelspec": {"language": "R"}}},
        {"worksheets": [{"cells": [{"cell_type": "markdown", "source": ["# A"]}, {**CODE, "input": CODE["source"]}]}],
         "metadata": {"language_info": {"name": "R"}}},
    ],
)  # fmt: skip
def test_cells_in_order(notebook: dict[str, Any]) -> None:
    (text,) = read(json.dumps(notebook).encode(), Documents())
    assert text.text == "# A\n\n````R\nx = '```'\nx\n````"
    assert text.fields["language"] == "R"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"{", "not JSON"), (b"[" * 100_000, "not JSON"), (b"[]", "no list of cells"), (b'{"cells": []}', "without text"),
     (b'{"cells": 3}', "no list"), (b'{"worksheets": [3]}', "no list")],
)  # fmt: skip
def test_what_is_no_notebook(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        list(read(data, Documents()))

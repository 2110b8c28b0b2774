"""Inspect as a program that asks a served model: any task of its own, in a file or a package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.evals.program import Address, ProgramItem, results

_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer


class InspectProgram:
    """``inspect eval`` with its provider ``openai-api``."""

    package = "inspect_ai"
    executable = "inspect"

    def arguments(self, address: Address, task: str, out: Path) -> list[str]:
        """As ``Program.arguments``."""
        model = f"openai-api/treadle/{address.model}"
        return ["eval", task, "--model", model, "--log-dir", str(out), "--log-format", "json", "--display", "none"]

    def environment(self, address: Address) -> dict[str, str]:
        """As ``Program.environment``."""
        return {"TREADLE_API_KEY": address.key, "TREADLE_BASE_URL": address.url}

    def read(self, out: Path) -> list[ProgramItem]:
        """As ``Program.read``."""
        try:
            said = json.loads(results(out, "*.json").read_bytes())
            return [_item(sample) for sample in said.get("samples") or ()]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(f"inspect: its log cannot be read ({type(error).__name__})") from None


def _item(sample: dict[str, Any]) -> ProgramItem:
    values = {}
    for scorer, score in (sample.get("scores") or {}).items():
        value = _GRADES.get(score["value"], score["value"]) if isinstance(score["value"], str) else score["value"]
        if isinstance(value, int | float):
            values[scorer] = float(value)
    choices = sample["output"].get("choices") or [{"message": {"content": ""}}]
    name = f"{sample['id']}.{sample.get('epoch', 1)}"
    return ProgramItem(
        name, _text(sample["input"]), _text(sample["target"]), _text(choices[0]["message"]["content"]), values
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

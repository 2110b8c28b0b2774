"""lm-evaluation-harness as a program that asks a served model: tasks that generate, through chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.evals.program import Address, ProgramItem, results


class LmEvalProgram:
    """``lm_eval`` with its model ``local-chat-completions``. Likelihoods cannot be had over such an address."""

    package = "lm_eval"
    executable = "lm_eval"

    def arguments(self, address: Address, task: str, out: Path) -> list[str]:
        """As ``Program.arguments``."""
        about = (
            f"model={address.model},base_url={address.url}/chat/completions,num_concurrent=4,tokenized_requests=False"
        )
        asked = ["--model", "local-chat-completions", "--model_args", about, "--tasks", task]
        return [*asked, "--apply_chat_template", "--log_samples", "--output_path", str(out)]

    def environment(self, address: Address) -> dict[str, str]:
        """As ``Program.environment``."""
        return {"OPENAI_API_KEY": address.key}

    def read(self, out: Path) -> list[ProgramItem]:
        """As ``Program.read``."""
        found = []
        for line in results(out, "samples_*.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                found.append(_item(json.loads(line)))
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise UserError(f"lm-eval: a line of its samples cannot be read ({type(error).__name__})") from None
        return found


def _item(row: dict[str, Any]) -> ProgramItem:
    values = {name: float(row[name]) for name in row["metrics"] if isinstance(row[name], int | float)}
    answer = row["filtered_resps"][0]
    asked = (
        next(iter(row["arguments"].values()))["arg_0"] if isinstance(row["arguments"], dict) else row["arguments"][0][0]
    )
    return ProgramItem(
        f"{row['doc_id']}.{row.get('filter', '')}", _text(asked), _text(row["target"]), _text(answer), values
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

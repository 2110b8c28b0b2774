"""A small project: seventy conversations, a tiny model, and the command line in front of it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command

THINGS = ("kettle", "lamp", "printer", "router", "bicycle", "tent", "radio", "camera", "stove", "drill")
DEEDS = ("return", "repair", "clean", "register", "charge", "reset", "store")
SUBJECT = "jane.roe@example.org"
NAME = "Jane Quillfeather"

FILE = """\
name: helper
task: chat
seed: 17
collect:
  sources:
    - type: files
      path: ../data/chats.jsonl
      license: CC0-1.0
      fields: {{messages: messages, subject: customer, time: time}}
prepare:
  steps: [normalize, deduplicate, redact]
  split: {{train: 0.6, validation: 0.1, test: 0.3}}
develop:
  base_model: {base}
  learning_rate: 1e-2
  tokens: 3000
  max_length: 256
  evaluate: {{metrics: [log_likelihood, perplexity, rouge_l], baselines: [base], max_tokens: 8}}
deploy:
  quantize: {{format: q8_0, max_loss: 0.5}}
  system_prompt: You help.
  max_tokens: 16
  smoke_requests: 4
govern:
  purpose: a test
  gates:
    - quality: {{metric: log_likelihood, beats: base}}
    - quality: {{metric: log_likelihood, not_worse_than: champion}}
    - personal_data: {{max_findings: 0}}
    - license: {{allow: [CC0-1.0, Apache-2.0, not recorded, unknown]}}
improve:
  retrain_when: {{corrections: 2}}
  cooldown: 0s
  budget: {{turns: 100, per: 1d}}
  promote: auto
"""


@dataclass(frozen=True)
class Project:
    """A project on disk and the command line in front of it."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder.parent / "data" / "chats.jsonl"

    @property
    def file(self) -> Path:
        return self.folder / "treadle.yaml"

    def call(self, *arguments: str, check: int | None = 0, timeout: float = 1_800) -> subprocess.CompletedProcess[str]:
        """Run a command and check its exit code."""
        done = command.run("-C", str(self.folder), *arguments, timeout=timeout)
        if check is not None:
            assert done.returncode == check, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, check: int | None = 0) -> Any:
        """Run a command with ``--json`` and parse what it says."""
        return json.loads(self.call(*arguments, "--json", check=check).stdout)

    def edit(self, old: str, new: str) -> None:
        """Change the project's file."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def start(self, *arguments: str) -> command.Started | subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return command.start("-C", str(self.folder), *arguments)


def write_data(path: Path) -> None:
    """Seventy short conversations; every tenth is Jane's, and one of another customer's names her."""
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        rows = [(thing, deed) for thing in THINGS for deed in DEEDS]
        for number, (thing, deed) in enumerate(rows):
            answer = f"To {deed} the {thing}, open its menu and choose {deed}, then follow page {number}."
            if number == 25:
                answer += f" As {NAME} did."
            row = {
                "messages": [
                    {"role": "user", "content": f"How do I {deed} my {thing}?"},
                    {"role": "assistant", "content": answer},
                ],
                "customer": SUBJECT if number % 10 == 3 else f"customer-{number % 23}",
                "time": f"2026-01-{number % 28 + 1:02}",
            }
            file.write(json.dumps(row) + "\n")


def make_project(root: Path, base: Path) -> Project:
    """The project's files, nothing run yet."""
    write_data(root / "data" / "chats.jsonl")
    folder = root / "project"
    folder.mkdir()
    (folder / "treadle.yaml").write_text(FILE.format(base=base))
    return Project(folder)

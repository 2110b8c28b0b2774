"""One clear line each: what, where, what was expected, what to do; the documented exit code; nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import command

TEMPLATE = "docs-assistant"
WRONG_GATES = (
    ("{quality: {metric: log_likelihood}}", "quality): give exactly one of beats and not_worse_than"),
    ("{quality: {metric: rouge_l, beats: model@v9}}", "quality): nothing called 'model@v9' is evaluated; known: "),
    ("{quality: {metric: rouge_l, beats: few_shots}}", "quality): nothing called 'few_shots' is evaluated; did you"),
    (
        "{quality: {metric: rouge_l, beats: base, on: cases}}",
        "quality): nothing called 'base' is evaluated on cases; known: champion",
    ),
    ("{personal_data: {kinds: [emial]}}", "personal_data): there is no kind of personal data called 'emial'; did"),
    ("{personal_data: {max_findings: -1}}", "personal_data): max_findings: "),
    ("{answers: {max_empty: 2}}", "answers): max_empty: "),
)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command.run("-C", str(folder), *arguments, timeout=120)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    assert call(folder, "init", "p", "--template", TEMPLATE).returncode == 0
    return folder / "p"


@pytest.fixture
def project(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "p"))


def replace(project: Path, old: str, new: str) -> None:
    file = project / "treadle.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("develop:", "develp:", ["unknown key 'develp'", "did you mean 'develop'"]),
        ("learning_rate: 1e-4", "learning_rat: 1e-4", ["develop.learning_rat", "did you mean 'learning_rate'"]),
        ("learning_rate: 1e-4", "learning_rate: fast", ["develop.learning_rate", "number", "fast"]),
        ("tokens: 24000", "tokens: -1", ["develop.tokens", "greater than or equal to 1"]),
        ("task: chat", "task: chatt", ["task", "chat"]),
        ("port: 8000", "port: 99999", ["deploy.port", "65535"]),
        ("- type: python_docs", "- type: python_dox", ["python_dox", "did you mean 'python_docs'"]),
        ("- normalize", "- normalise", ["normalise", "did you mean 'normalize'"]),
        ("min_chars: 20", "min_char: 20", ["min_char", "did you mean 'min_chars'"]),
        ("examples: docstring_qa", "examples: docstring_qq", ["docstring_qq", "did you mean 'docstring_qa'"]),
        ("rouge_l, token_f1", "rouge_x, token_f1", ["rouge_x", "did you mean 'rouge_l'"]),
        ("baselines: [base, few_shot]", "baselines: [bass]", ["bass", "few_shot"]),
        ("- personal_data:", "- personal_date:", ["personal_date", "did you mean 'personal_data'"]),
        ("max_findings: 0", "max_finding: 0", ["max_finding", "did you mean 'max_findings'"]),
        ("base_model: smollm2-135m-instruct", "base_model: smollm2-135m-instrukt", ["smollm2-135m-instruct"]),
        ("store: .treadle", "store: ftp://bucket/x", ["store", "ftp"]),
        (
            "- type: python_docs",
            "- {type: files, path: 'https://me:word@host/a.jsonl'}\n    - type: python_docs",
            ["collect.sources[0].path holds a secret; take it out: the keys of a bucket come from its service's"],
        ),
        (
            "- type: python_docs",
            "- {type: git, url: 'https://me:word@host/a.git'}\n    - type: python_docs",
            ["collect.sources[0].url holds a secret; take it out, and write `token: ${env:NAME}` beside it"],
        ),
        (
            "- type: python_docs",
            "- {type: website, contact: me@host.org, start: ['https://me:word@host/']}\n    - type: python_docs",
            ["collect.sources[0].start[0] holds a secret; take it out: pages behind a login are not crawled"],
        ),
        (
            "- type: python_docs",
            "- {type: sql, url: 'mysql://me:word@host/a', query: SELECT 1, key: a}\n    - type: python_docs",
            ["collect.sources[0].url holds a secret; write ${env:NAME} instead"],
        ),
        ("seed: 17", "seed: 17\nseed: 18", ["seed", "twice"]),
        ("seed: 17", "seed: [1", ["not valid YAML"]),
        ("retention: 30d", "retention: a while", ["monitor.retention", "30d"]),
        ("name: docs-assistant", "name: docs assistant", ["name", "docs-assistant"]),
        ("train: 0.8", "train: 0.9", ["prepare.split", "add up to 1"]),
    ],
)
def test_a_mistake_in_the_file_is_one_line(project: Path, old: str, new: str, said: list[str]) -> None:
    replace(project, old, new)
    done = call(project, "plan")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("treadle: ")
    assert done.stderr.count("\n") == 1
    for words in said:
        assert words in done.stderr
    assert json.loads(call(project, "plan", "--json").stdout)["error"]["exit_code"] == 2


FILES = """    - type: files
      path: rows.jsonl
      license: MIT
      fields:
        prompt: question
        completion: answer
    # - type: files"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "    # - type: files",
            FILES,
            "17: collect.sources[1] (files): no setting 'fields.completion'; known: chosen, id, label, messages",
        ),
        (
            "    # - type: files",
            FILES.replace("completion", "respons"),
            "17: collect.sources[1] (files): no setting 'fields.respons'; did you mean 'response'?",
        ),
        (
            "    # - type: files",
            FILES.replace("completion", "response"),
            "12: collect.sources[1]: files: nothing matches rows.jsonl",
        ),
        (
            "type: python_docs",
            "type: python_dox",
            "10: collect.sources[0]: there is no source called 'python_dox'; did you mean 'python_docs'?",
        ),
        (
            "- filter: {min_chars: 20, max_chars: 4000}",
            "- filter:\n        min_chars: 20\n        max_char: 4000",
            "21: prepare.steps (filter): no setting 'max_char'; did you mean 'max_chars'?",
        ),
        (
            "- normalize",
            "- normalise",
            "18: prepare.steps[0]: there is no transform called 'normalise'; did you mean 'normalize'?",
        ),
        (
            "kinds: [email, phone, iban, credit_card]",
            "kinds: {email: nuke}",
            "21: prepare.steps (redact): kinds.email: input should be 'redact', 'replace' or 'drop'",
        ),
        (
            "examples: docstring_qa",
            "examples: {docstring_qa: {system: x}}",
            "22: prepare.steps[4].examples (docstring_qa): no setting 'system'; did you mean 'system_prompt'?",
        ),
        ("  split:", "  on: {pool: {worker: 2}}\n  split:", "23: prepare.on (pool): no setting 'worker'; did you mean"),
        (
            "quality: {metric: rouge_l, beats: few_shot}",
            "quality:\n        metric: rouge_l\n        on: now",
            "60: govern.gates[1] (quality): on: input should be 'tests' or 'cases'",
        ),
        ("rouge_l, token_f1", "rouge_x, token_f1", "38: develop.evaluate.metrics: there is no metric called 'rouge_x'"),
    ],
)
def test_a_mistake_in_a_part_s_settings_says_its_line(project: Path, old: str, new: str, said: str) -> None:
    replace(project, old, new)
    done = call(project, "plan")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"treadle: treadle.yaml:{said}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "collect.sources.0.licens=x",
            "collect.sources[0] (python_docs): no setting 'licens'; did you mean 'license'?",
        ),
        ("prepare.steps=[normalise]", "prepare.steps[0]: there is no transform called 'normalise'; did you mean"),
        ("govern.gates.4.answers.max_emty=1", "govern.gates[4] (answers): no setting 'max_emty'; did you mean"),
        ("improve.canary.steps=[0.5, 0.1]", "improve.canary.steps: expected rising shares between 0 and 1"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_as_one(begun: Path, override: str, said: str) -> None:
    done = call(begun, "plan", "--set", override)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"treadle: --set {said}")


def test_yaml_1_2_scalars(project: Path) -> None:
    replace(project, "engine: auto ", "engine: off ")  # text, not false
    done = call(project, "plan")
    assert "false" not in done.stderr.lower()


def test_missing_things(tmp_path: Path, project: Path) -> None:
    for arguments, said in (
        (("init", "q", "--template", "docs-asistant"), "did you mean 'docs-assistant'"),
        (("init", "p", "--template", TEMPLATE), "exists already"),
        (("init", "q", "--template", "chat"), "--data"),
        (("init", "q", "--template", "chat", "--data", "nowhere.jsonl"), "no such file"),
        (("plan",), "treadle init"),
        (("pln",), "did you mean 'plan'"),
    ):
        done = call(tmp_path, *arguments)
        assert done.returncode == 2, arguments
        assert said in done.stderr
    for arguments, said in (
        (("run", "--until", "develp"), "did you mean 'develop'"),
        (("serve",), "nothing has been promoted"),
        (("serve", "--journal", "j"), "serve --journal: it is of --release-folder DIR"),
        (("serve", "model@v1", "--release-folder", "r", "--journal", "j"), "RELEASE is of a project"),
        (("serve", "--keep", "9", "--release-folder", "r", "--journal", "j"), "--keep is of a project"),
        (("serve", "--release-folder", "r", "--journal", "treadle.yaml"), "treadle.yaml: is a file; expected a folder"),
        (
            ("serve", "--release-folder", "r", "--journal", "j", "--digest", "b3:12"),
            "serve --digest b3:12: expected b3:",
        ),
        (("serve", "--release-folder", "r", "--journal", "j", "--remote", "m"), "--digest is missing"),
        (("develop", "--estimate", "--price", "nan"), "--price': nan is not a finite number"),
        (("optimize", "model@v1", "--budget", "inf"), "--budget': inf is not a finite number"),
        (("serve", "--degrade-for", "10m"), "in a project, deploy.degrade_for says it"),
        (("render", "docker", "--out", "o", "--with", "model=wrong"), "model: input should be 'inside'"),
        (("ask", "What?"), "nothing has been promoted"),
        (("lineage", "model@v1"), "there is no model"),
        (("diff", "model@v1", "model@v2"), "there is no model"),
        (("approve", "model@v1"), "there is no model"),
        (("runs", "run-nothing"), "there is no run"),
        (("feedback", "int-nothing", "--thumbs", "up"), "there is no interaction"),
        (("feedback", "int-nothing", "--correction", ""), "--correction: there is no character in it that can be seen"),
        (("feedback", "int-nothing", "--correction", "\u200b "), "--correction: there is no character in it"),
        (("run", "--set", "develop.learning_rate"), "--set"),
        *(
            ((stage, "--set", f"govern.gates=[{gate}]"), f"govern.gates[0] ({said}")
            for stage in ("plan", "run")
            for gate, said in WRONG_GATES
        ),
    ):
        done = call(project, *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert said in done.stderr, done.stderr
    assert call(project / "nowhere", "plan").returncode == 2


def test_a_missing_source_file(tmp_path: Path) -> None:
    rows = tmp_path / "chats.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    assert call(tmp_path, "init", "p", "--template", "chat", "--data", "chats.jsonl").returncode == 0
    rows.unlink()
    done = call(tmp_path / "p", "plan")
    assert done.returncode == 2
    assert "chats.jsonl" in done.stderr


def test_a_model_folder_without_weights_and_a_truncated_gguf(project: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty-model"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    replace(project, "base_model: smollm2-135m-instruct", f"base_model: {empty}")
    done = call(project, "plan")
    assert done.returncode == 2
    assert "safetensors" in done.stderr
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 20)
    replace(project, f"base_model: {empty}", f"base_model: {cut}")
    done = call(project, "run", "--until", "prepare")
    assert done.returncode == 2
    assert str(cut) in done.stderr


def test_a_store_of_another_format(project: Path) -> None:
    assert call(project, "status").returncode == 0
    (project / ".treadle" / "format").write_text("99\n")
    done = call(project, "status")
    assert done.returncode == 2
    assert "99" in done.stderr
    assert "up to format" in done.stderr


def test_a_taken_port(project: Path) -> None:
    from treadle.core.errors import UserError
    from treadle.serve.server import bind

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* in use"):
            bind("127.0.0.1", port)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root: sudo make test")
def test_a_read_only_disk(project: Path) -> None:
    store = project / ".treadle"
    store.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(store)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        done = call(project, "status")
    finally:
        subprocess.run(["umount", str(store)], check=True)
    assert done.returncode == 2
    assert "Read-only" in done.stderr or "read-only" in done.stderr
    assert done.stderr.count("\n") == 1
    assert call(project, "status").returncode == 0

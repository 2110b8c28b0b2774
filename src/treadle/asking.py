"""Asking the deployed model, and what its answer came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.core.errors import TreadleError, UserError
from treadle.evals.task import PATHS, Asking, load_task
from treadle.project import Project
from treadle.record.lineage import Graph
from treadle.record.release import Release
from treadle.stages.deploy.serving import opener, serving_now
from treadle.stages.govern import champion_release, release_of
from treadle.stages.track.walk import lineage

if TYPE_CHECKING:
    import httpx

_TIMEOUT = 300.0  # seconds for one answer
SHOWN = 20  # documents named in an answer's lineage
_PROBE = 1.0  # seconds to find out whether a server is there


@dataclass(frozen=True)
class Answer:
    """One answer with its lineage."""

    question: str
    text: str
    interaction: str
    release: str
    model: str
    graph: Graph

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.interaction,
            "question": self.question,
            "answer": self.text,
            "release": self.release,
            "model": self.model,
            "lineage": self.graph.public(),
        }


def recorded(project: Project, release: Release, question: str) -> Answer | None:
    """The latest answer this release gave when the same question was put to it alone; None when it never was."""
    wanted, found = ({"role": "user", "content": question},), None
    for row in project.record.recorder.interactions(release.digest):
        if row.messages == wanted and row.answer and row.status == "ok" and not row.given:
            found = row
    if found is None or found.answer is None:
        return None
    graph = lineage(project.record, found.id, limit=SHOWN)
    return Answer(question, found.answer, found.id, found.release, found.model, graph)


def ask(project: Project, release: Release, questions: Sequence[str], user: str | None = None) -> Iterator[Answer]:
    """Put questions to the server that runs this release, or to one started for the purpose."""
    import httpx

    if not questions:
        return
    key = os.environ.get("TREADLE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    task = load_task(project.file.task, project.folder)
    with (
        _server(project, release, headers) as url,
        httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=False) as client,
    ):
        for question in questions:
            path, body = _request(task.asking, question, user)
            body["model"] = release.digest  # by name, so that no canary is drawn
            reply = _post(client, path, body)
            if reply["system_fingerprint"] != release.digest:
                raise UserError(f"{url} answers with another release; stop that server, or ask with --release")
            graph = lineage(project.record, reply["id"], limit=SHOWN)
            yield Answer(
                question, _text(task.asking, reply), reply["id"], reply["system_fingerprint"], reply["model"], graph
            )


@contextmanager
def _server(project: Project, release: Release, headers: dict[str, str]) -> Iterator[str]:
    """The address of a server that runs the release."""
    alive = serving_now(project.record)
    for deployment in reversed(project.record.deployments.all()):
        url = deployment.endpoint
        if deployment.release == release.digest and url in alive and _answers(url, headers):
            yield url
            return
    from treadle.serve.server import serving

    recording = project.file.monitor.recording(project.file.govern.purpose)
    with serving(opener(project.record, release, recording)) as url:
        yield url


def _answers(endpoint: str, headers: dict[str, str]) -> bool:
    import httpx

    try:
        return (
            httpx.get(endpoint + "/health/ready", headers=headers, timeout=_PROBE, trust_env=False).status_code == 200
        )
    except httpx.HTTPError:
        return False


def _request(asking: Asking, question: str, user: str | None) -> tuple[str, dict[str, Any]]:
    named = {"user": user} if user else {}
    if asking not in ("chat", "extract"):
        return PATHS[asking], {"input": question, **named}
    return PATHS[asking], {"messages": [{"role": "user", "content": question}], "temperature": 0, **named}


def _text(asking: Asking, reply: dict[str, Any]) -> str:
    if asking == "classify":
        return str(reply["data"][0]["label"])
    if asking == "tag":
        return "\n".join(f"{span['type']}: {span['text']}" for span in reply["data"][0]["spans"])
    if asking == "embed":
        return f"a vector of {len(reply['data'][0]['embedding'])} numbers; POST {PATHS[asking]} gives them"
    return str(reply["choices"][0]["message"]["content"])


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply; one clear line when there is none, or when it is a refusal."""
    import httpx

    try:
        response = client.post(path, json=body)
        reply: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise UserError(
            f"{client.base_url}: no answer ({type(error).__name__}); is treadle serve what runs there?"
        ) from None
    if response.status_code != 200:
        raise _refusal(response.status_code, reply)
    return reply


def _refusal(status: int, body: dict[str, Any]) -> TreadleError:
    message = str(body.get("error", {}).get("message", body))
    return UserError(message) if 400 <= status < 500 else TreadleError(f"the server answered {status}: {message}")


def find_release(project: Project, ref: str | None) -> Release:
    """The release that ``ref`` names, or the champion's; ``UserError`` when there is none."""
    record = project.record
    if ref is None or ref == "@champion":
        found = champion_release(record)
        if found is None:
            newest = record.versions.latest("model")
            way = f"treadle status says why {newest.short} was not" if newest else "run: treadle run"
            raise UserError(f"nothing has been promoted yet; {way}")
        return found
    if ref.startswith("b3:"):
        sql = "SELECT DISTINCT digest FROM artifacts WHERE kind = 'release' AND digest LIKE ?"
        rows = record.workspace.database.query(sql, (ref + "%",))
        if len(rows) != 1:
            raise UserError(f"{ref} names {len(rows)} releases; treadle runs --step deploy.bundle lists them")
        return Release(rows[0][0], record.store)
    version = record.versions.resolve(ref)
    found = release_of(record, version) if version else None
    if found is None:
        raise UserError(f"there is no release of {ref!r}; expected model@v1, @champion or b3:...")
    return found

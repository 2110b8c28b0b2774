"""Targets: a release as the files that a platform takes, and those files put to work there.

``render`` writes plain files for people to read and commit. ``treadle.json`` beside them names the release and every
file that was written, so that rendering again changes nothing, and nothing is overwritten that somebody has edited.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from treadle.core.artifacts import Artifact
from treadle.core.digest import blake3_bytes, blake3_file, is_digest
from treadle.core.errors import Refused, TreadleError, UserError
from treadle.core.plugins import load
from treadle.core.settings import bind
from treadle.evals.task import PATHS, Asking
from treadle.record.model_card import ModelCard
from treadle.record.release import ReleaseSpec
from treadle.stages.deploy.call import Call, Command

GROUP = "treadle.targets"
WRITTEN = "treadle.json"
FORMAT = 1
QUESTION = "What can you do?"
REMOTE = "remote"  # the setting that names a place of treadle push, of targets that have a release fetched from there
CANARY = "canary"  # the setting that names another release, of targets that can try one beside the first
RELEASE = "release"  # the folder beside the files that the release itself is put into when they are applied
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}\Z")
# As https://github.com/distribution/reference has it: a registry, parts in small letters, a tag, a digest.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:]+\])"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@[a-z0-9+._-]+:[a-f0-9]{{32,}})?\Z",
    re.ASCII,
)
_TO_FILL = re.compile(r"[^-\s\"'`\\][^\s\"'`\\]*\Z")  # with a variable of the shell in it, which may be any part
_START = 180.0  # seconds that what was deployed gets to answer
Content = bytes | Path  # of a file that is rendered; a path is that of a file to copy


@dataclass(frozen=True)
class Rendering:
    """A release to be rendered. ``model`` is the name it answers to, ``engine`` what ``auto`` comes to; ``bytes`` of
    all its files, ``memory`` in bytes of its engine as the smoke test measured it (None: it did not).

    ``trained`` is the model before it was optimized, a Hugging Face folder, and ``card`` what govern wrote of it, where
    the store has them. ``canary`` is the release that the setting of that name asks to be tried beside this one.
    ``scratch`` is a folder for files that are made, gone when the rendering is written."""

    digest: str
    model: str
    spec: ReleaseSpec
    engine: str
    bytes: int
    memory: int | None = None
    trained: Artifact | None = None
    card: ModelCard | None = None
    canary: Rendering | None = None
    scratch: Path = Path()

    @property
    def slug(self) -> str:
        """The name as hosts and containers may have it."""
        return re.sub(r"[^a-z0-9]+", "-", self.spec.name.lower()).strip("-")[:40].rstrip("-") or "release"

    @property
    def tag(self) -> str:
        """Names exactly this release, as an image's tag."""
        return _tag(self.digest)


def _tag(digest: str) -> str:
    return digest.replace(":", "-")[:19]


def trial_name(slug: str) -> str:
    """What the parts of a release on trial are called, beside those of the other."""
    return f"{slug}-canary"


@dataclass(frozen=True)
class Plan:
    """How rendered files are put to work: commands (run in their folder) and calls of the platform's API, in order;
    then ``endpoint`` is asked, if there is one.

    ``release``: the folder there in which the release's files are needed. ``ask``: how it is asked where our own paths
    are not at ``endpoint``; gives what they would answer. ``then``: what is done once the answers were right, such as
    sending requests there.
    """

    commands: tuple[Command, ...]
    endpoint: str | None = None
    release: str = ""
    ask: Callable[[Written], Any] | None = None
    then: tuple[Command, ...] = ()


class Target(Protocol):
    """A platform. Its settings are the parameters it is made with; ``tool`` is the program that applies its files.

    A setting ``canary`` names another release, which `Rendering.canary` then is; such a target has ``share``, the part
    of the requests that it gives to that release. A setting ``remote`` is the address, or the whole path, of a place
    that releases are pushed to; whoever renders may say its name in the project.
    """

    tool: str

    def render(self, release: Rendering) -> Mapping[str, Content]:
        """The files, by path; the same for the same release."""
        ...

    def apply(self, written: Written) -> Plan:
        """How to put them to work."""
        ...

    def down(self, written: Written) -> Plan:
        """How to take that away again."""
        ...


@dataclass(frozen=True)
class OnTrial:
    """The release that is tried beside another, and its ``share`` of the requests, from 0 to 1."""

    release: str
    model: str
    share: float


@dataclass(frozen=True)
class Written:
    """What ``treadle.json`` says of a rendered folder. ``files``: digest by path."""

    target: str
    release: str
    model: str
    slug: str
    tag: str
    asking: str
    settings: dict[str, Any]
    files: dict[str, str]
    canary: OnTrial | None = None

    def to_bytes(self) -> bytes:
        """As written."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return (json.dumps({"format": FORMAT, **said}, indent=2, sort_keys=True) + "\n").encode()

    def answering(self) -> list[Written]:
        """What there is to be asked: this, and what is tried beside it, each for itself."""
        alone, tried = replace(self, canary=None), self.canary
        if tried is None:
            return [alone]
        slug, tag = trial_name(self.slug), _tag(tried.release)
        return [alone, replace(alone, release=tried.release, model=tried.model, slug=slug, tag=tag)]

    def shares(self) -> list[tuple[str, str, float]]:
        """Release, model and part of the requests of each."""
        if self.canary is None:
            return [(self.release, self.model, 1.0)]
        tried = self.canary
        return [
            (self.release, self.model, round(1 - tried.share, 9)),
            (tried.release, tried.model, tried.share),
        ]

    @classmethod
    def read(cls, folder: Path) -> Written | None:
        """Of a folder; None where nothing was rendered, ``UserError`` where the file is of no known form."""
        path = folder / WRITTEN
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_bytes())
            if found.pop("format") != FORMAT:
                raise ValueError("another format")
            tried = found.pop(CANARY, None)
            return cls(**found, canary=None if tried is None else OnTrial(**tried))._checked()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is not what treadle render wrote ({type(error).__name__}); remove it") from None

    def _checked(self) -> Written:
        """Itself; ``ValueError`` for what would be another file, option or release in a command. Others may have
        written the folder."""
        named: list[Any] = [self.target, self.model, self.slug, self.tag, self.asking]
        digests = [self.release]
        if self.canary is not None:
            named.append(self.canary.model)
            digests.append(self.canary.release)
            if not 0 <= self.canary.share < 1:
                raise ValueError("no share")
        files: Mapping[str, Any] = self.files
        if not all(isinstance(word, str) and _WORD.match(word) for word in named) or not all(map(is_digest, digests)):
            raise ValueError("no name")
        if not all(isinstance(digest, str) and _inside(path) for path, digest in files.items()):
            raise ValueError("no path")
        dict(self.settings)
        return self


def check_port(target: str, port: int, word: str = "port") -> None:
    """``UserError`` for what is no port."""
    if not 0 < port < 1 << 16:
        raise UserError(f"target {target}: {word} {port}: expected a number from 1 to 65535")


def check_image(target: str, image: str, word: str = "image") -> None:
    """``UserError`` for what no image is called; empty is for none."""
    if image and not (_TO_FILL if "$" in image else _IMAGE).match(image):
        raise UserError(
            f"target {target}: {word} {image!r}: expected an image's name, in small letters, such as registry/name:1"
        )


def find_target(name: str, settings: Mapping[str, Any], folder: Path | None) -> Target:
    """The target called ``name``, with its settings checked."""
    made = bind(load(GROUP, name, folder).value, settings, where=f"target {name}", provided={})
    return cast("Target", made)


def render(
    name: str,
    release: Rendering,
    out: Path,
    settings: Mapping[str, Any],
    folder: Path | None = None,
    find: Callable[[str], Rendering] | None = None,
) -> tuple[Written, list[str]]:
    """Write the files of a target into ``out``; gives what is there now and the paths that were new or changed.
    ``find`` looks up the release that a canary is, where ``release`` does not bring it along.

    ``UserError``, and nothing is written, where a file would be overwritten that this did not write or that was edited.
    """
    target = find_target(name, settings, folder)
    if settings.get(CANARY):
        tried = release.canary or (find(str(settings[CANARY])) if find is not None else None)
        if tried is None:
            raise UserError(f"render {name}: canary {settings[CANARY]!r}: there is no project here to look it up in")
        _check_trial(name, release, tried)
        release = replace(release, canary=tried)
        settings = {**settings, CANARY: tried.digest}  # whatever the name stands for later
    with tempfile.TemporaryDirectory(prefix="treadle-") as scratch:
        files = target.render(replace(release, scratch=Path(scratch)))
        written = _of(name, release, settings, files)
        if release.canary is not None:
            share = float(getattr(target, "share", 0.0))
            written = replace(written, canary=OnTrial(release.canary.digest, release.canary.model, share))
        return written, _write_all(name, written, out, files)


def _check_trial(name: str, release: Rendering, tried: Rendering) -> None:
    """``UserError`` where nothing could be told apart, or clients of one could not ask the other."""
    if tried.digest == release.digest:
        raise UserError(f"render {name}: canary: {tried.model} is the release itself; name another")
    ours, theirs = release.spec.asking, tried.spec.asking
    if ours != theirs:
        raise UserError(f"render {name}: canary: {tried.model} is asked to {theirs}, {release.model} to {ours}")


def _of(name: str, release: Rendering, settings: Mapping[str, Any], files: Mapping[str, Content]) -> Written:
    digests = {path: _digest(content) for path, content in sorted(files.items())}
    names = (release.model, release.slug, release.tag, release.spec.asking)
    return Written(name, release.digest, *names, dict(settings), digests)


def _write_all(name: str, written: Written, out: Path, rendered: Mapping[str, Content]) -> list[str]:
    """Paths that were new or changed; what an earlier rendering wrote, and this does not, is gone."""
    files: dict[str, Content] = {**rendered, WRITTEN: written.to_bytes()}
    before = Written.read(out)
    if before is not None and before.target != name:
        theirs = f"what treadle render {before.target} wrote, and treadle apply has to take down from there"
        raise UserError(f"render {name}: {out} holds {theirs}; name another folder with --out")
    kept = before.files if before else {}
    new = {**written.files, WRITTEN: blake3_bytes(written.to_bytes())}
    if led := [path for path in {**files, **kept} if not (out / path).resolve().is_relative_to(out.resolve())]:
        raise UserError(f"render: {out / led[0]} leads out of {out} by a link; name another folder with --out")
    try:
        changed = [path for path, digest in sorted(new.items()) if _changes(out / path, digest, kept.get(path))]
        gone = [path for path in kept if path not in files and _is(out / path, kept[path])]
        for path in changed:
            _write(out / path, files[path])
        for path in gone:
            (out / path).unlink()
    except OSError as error:
        raise UserError(f"render {name}: cannot write {out}: {error.strerror or error}") from None
    return changed


def _digest(content: Content) -> str:
    return blake3_file(content) if isinstance(content, Path) else blake3_bytes(content)


def _changes(path: Path, digest: str, known: str | None) -> bool:
    """Whether a file is to be written."""
    if not path.exists() and not path.is_symlink():
        return True
    if path.is_symlink() or not path.is_file():
        raise UserError(f"render: {path} is no plain file; name another folder with --out")
    there = blake3_file(path)
    if there == digest:
        return False
    if path.name != WRITTEN and there != known:
        raise UserError(f"render: {path} was edited, or is not from treadle render; move it, or name another --out")
    return True


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and not path.is_symlink() and blake3_file(path) == digest


def _inside(path: str) -> bool:
    """Whether a path leads to a place below the folder that it is of."""
    parts = path.split("/")
    return not set(parts) & {"", ".", ".."} and "\\" not in path and "\0" not in path


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # never through a link that lies there
    if isinstance(content, Path):
        shutil.copyfile(content, beside)
    else:
        beside.write_bytes(content)
    beside.replace(path)


def shown(plan: Plan) -> list[str]:
    """Commands as a shell takes them, and calls in words."""
    return [each.said if isinstance(each, Call) else shlex.join(each) for each in (*plan.commands, *plan.then)]


def carry_out(plan: Plan, folder: Path) -> None:
    """Do it all in the folder, as far as the question that is asked then; ``UserError`` names the command that failed,
    or whose program is missing."""
    _do(plan.commands, folder)


def conclude(plan: Plan, folder: Path) -> None:
    """Do the rest, once the answers were right; ``UserError`` as `carry_out`."""
    _do(plan.then, folder)


def _do(commands: Sequence[Command], folder: Path) -> None:
    for command in commands:
        if isinstance(command, Call):
            command.make(folder)
            continue
        try:
            done = subprocess.run(command, cwd=folder, stdout=2, check=False)  # stdout is the command's own
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}; treadle doctor says what is missing") from None
        if done.returncode:
            raise UserError(f"{shlex.join(command)}: exit code {done.returncode}; it said why above")


def smoke(plan: Plan, written: Written) -> str:
    """Ask what was deployed a question once it is ready, and give its answer.

    ``Refused`` when another release answers than the one that was rendered, ``UserError`` when none does.
    """
    endpoint = plan.endpoint or "it"
    said = plan.ask(written) if plan.ask is not None else asked(endpoint, written)
    found = said.get("system_fingerprint") if isinstance(said, dict) else None
    if found != written.release:
        raise Refused(f"{endpoint} answers with release {found}, not {written.release}")
    return _answer(said)


def asked(endpoint: str, written: Written, *, wait: float = _START) -> Any:
    """What a server of ours answers to the question once it is ready. ``UserError`` when that takes longer than
    ``wait`` seconds, or it answers something else."""
    import httpx

    key = os.environ.get("TREADLE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    until = time.monotonic() + wait
    with httpx.Client(base_url=endpoint, headers=headers, timeout=60, trust_env=False) as client:
        while not _ready(client):
            if time.monotonic() > until:
                raise UserError(f"{endpoint} was not ready within {wait:.0f} s; the log of what was started says why")
            time.sleep(0.5)
        try:
            response = client.post(PATHS[cast("Asking", written.asking)], json=question(written.asking))
            said = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise UserError(f"{endpoint} gave no answer ({type(error).__name__})") from None
    if response.status_code != 200:
        raise UserError(f"{endpoint} answered {response.status_code}: {said.get('error', {}).get('message', said)}")
    return said


def _ready(client: Any) -> bool:
    import httpx

    try:
        return bool(client.get("/health/ready", timeout=5).status_code == 200)
    except httpx.HTTPError:
        return False


def question(asking: str) -> dict[str, Any]:
    """The question, as a body of the path that such releases are asked at."""
    if asking in ("chat", "extract"):
        return {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 16}
    return {"input": QUESTION}


def _answer(said: dict[str, Any]) -> str:
    try:
        if "choices" in said:
            return str(said["choices"][0]["message"]["content"])
        return json.dumps(said["data"][0])[:500]
    except (LookupError, TypeError) as error:
        raise TreadleError(f"the answer has no text ({type(error).__name__})") from None

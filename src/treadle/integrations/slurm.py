"""A training as a Slurm job: a batch file is written beside the job, submitted, and waited for.

The project's folder has to be one that all machines of the cluster see, and Treadle has to be installed there at the
same path. The processes meet at the first machine of the job.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

from treadle.core.errors import UserError
from treadle.lm.launcher import Ended, Started, StrategyName, Torchrun, worker_command

_DIRECTIVE = re.compile(r"--[a-z][a-z-]*(=[\w.,:/@%+-]+)?")
_TAIL = 4096  # bytes of what the job said last
_FILE, _SAID = "job.sbatch", "said"


class Slurm(Torchrun):
    """``processes`` on each of ``nodes`` machines; ``directives`` are lines for ``#SBATCH``, as in ``--gres=gpu:4``."""

    name = "slurm"

    def __init__(
        self,
        nodes: int = 1,
        processes: int = 2,
        strategy: StrategyName = "ddp",
        directives: tuple[str, ...] = (),
    ) -> None:
        """``UserError`` for a directive that is none."""
        super().__init__(nodes * processes, strategy, 0)
        self._nodes, self._each, self._directives = nodes, processes, directives
        for line in directives:
            if not _DIRECTIVE.fullmatch(line):
                raise UserError(f"develop.on (slurm): directives: expected --name or --name=value, not {line[:80]!r}")

    def rendered(self, folder: Path) -> str:
        """The batch file of a job's folder."""
        asked = (f"--nodes={self._nodes}", f"--ntasks-per-node={self._each}", "--job-name=treadle")
        lines = [f"#SBATCH {line}" for line in (*asked, f"--output={folder / _SAID}", *self._directives)]
        who = "RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS"
        command = f"{who} LOCAL_WORLD_SIZE={self._each} exec {shlex.join(worker_command(folder))}"
        return "\n".join(
            (
                "#!/bin/bash",
                *lines,
                'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
                "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
                f"exec srun --kill-on-bad-exit=1 bash -c {shlex.quote(command)}",
                "",
            )
        )

    def start(self, folder: Path) -> Started:
        """Submit it. ``UserError`` where there is no Slurm; the file is told, to be submitted elsewhere."""
        file = folder / _FILE
        file.write_text(self.rendered(folder))
        sbatch = shutil.which("sbatch")
        if sbatch is None:
            raise UserError(f"develop.on (slurm): there is no sbatch here; run this where there is, or see {file}")
        with (folder / "submitted").open("wb") as said:
            process = subprocess.Popen([sbatch, "--parsable", "--wait", str(file)], stdout=said, stderr=said)
        return _Submitted(process, folder)


class _Submitted:
    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process, self._folder = process, folder

    def poll(self) -> Ended | None:
        code = self._process.poll()
        if code is None:
            return None
        return Ended(f"the job ended with code {code}{self._last_words()}") if code else Ended()

    def _last_words(self) -> str:
        for name in (_SAID, "submitted"):
            path = self._folder / name
            text = path.read_bytes()[-_TAIL:].decode(errors="replace") if path.exists() else ""
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return f": {lines[-1][:300]}"
        return ""

    def end(self) -> None:
        if self._process.poll() is None:
            number = (self._folder / "submitted").read_text(errors="replace").strip().partition(";")[0]
            cancel = shutil.which("scancel")
            if cancel is not None and number.isdigit():
                subprocess.run([cancel, number], check=False)
            self._process.terminate()
        self._process.wait()

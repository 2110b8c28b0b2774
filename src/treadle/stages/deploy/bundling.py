"""A release: everything that answers in one folder, with what a server has to know that has no project's file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.adapter import FOLDER as ADAPTER
from treadle.lm.adapter import described as described_adapter
from treadle.lm.model import Model, Optimized
from treadle.record.recording import Recording
from treadle.record.release import Release, ReleaseSpec
from treadle.stages.deploy.settings import DeploySettings
from treadle.text.dataset import Dataset


@step(name="deploy.bundle", version=3)
def bundle(
    optimized: Optimized,
    model: Model,
    dataset: Dataset,
    *,
    name: str,
    task: str,
    asking: str,
    engine: str,
    engine_settings: dict[str, Any],
    system_prompt: str | None,
    max_tokens: int,
    gateway: dict[str, Any],
    format: str | None,  # noqa: A002 (the setting's name)
    run: Run,
) -> Release:
    """Everything that answers, in one folder."""
    about = model.about()
    optimization: dict[str, Any] = {"format": format} if format else {}
    if engine_settings:
        optimization["settings"] = engine_settings
    spec = ReleaseSpec(
        name=name,
        task=task,
        asking=asking,
        model=model.digest,
        dataset=dataset.digest,
        base_model=about["base_model"],
        engine=engine,
        system_prompt=system_prompt,
        settings={"max_tokens": max_tokens, **gateway},
        optimization=optimization,
    )
    with run.create(Release) as release:
        shutil.copytree(optimized.path(), release.path / "model", ignore=shutil.ignore_patterns("documents.ids"))
        for path in (release.path / "model").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if (release.path / "model" / ADAPTER).is_dir():
            (release.path / "model" / ADAPTER).rename(release.path / ADAPTER)
            spec.optimization["adapter"] = described_adapter(release.path / ADAPTER, release.path / "model")
        (release.path / "release.json").write_bytes(canonical_json(spec.to_json()))
        release.add_documents(model.document_ids())
        return release.commit()


def for_gateway(settings: DeploySettings, recording: Recording, folder: Path | None) -> dict[str, Any]:
    """What the gateway does with a release's requests; part of the release. ``UserError`` for a wrong guardrail.

    How requests are recorded and how many are held go along for where it is served without the project's file.
    """
    found: dict[str, Any] = {}
    if settings.price is not None:
        found["price"] = settings.price.model_dump()
    if any(settings.guardrails.values()):
        from treadle.serve.guardrail_settings import described

        found["guardrails"] = described(settings.guardrails, folder)
    if rules := recording.unusual():
        found["recording"] = rules
    if settings.slo is not None:
        found["slo"] = settings.slo.model_dump(exclude_none=True)
    if "max_in_flight" in settings.model_fields_set:
        found["max_in_flight"] = settings.max_in_flight
    if "timeout" in settings.model_fields_set:
        found["timeout"] = settings.timeout
    return found

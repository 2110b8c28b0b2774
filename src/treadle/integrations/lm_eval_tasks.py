"""Task files of lm-evaluation-harness, where they are plain: rows of a JSON file and templates, no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treadle.core.errors import UserError

_KINDS = {
    "multiple_choice": "multiple_choice",
    "loglikelihood_rolling": "perplexity",
    "generate_until": "generate",
}
_METRICS = {
    "acc": "acc",
    "acc_norm": "acc_norm",
    "acc_bytes": "acc_bytes",
    "brier_score": "brier",
    "word_perplexity": "word_perplexity",
    "byte_perplexity": "byte_perplexity",
    "bits_per_byte": "bits_per_byte",
    "exact_match": "exact_text",
    "bleu": "bleu",
    "chrf": "chrf",
}
_KNOWN = {
    "task", "task_alias", "tag", "group", "dataset_path", "dataset_name", "dataset_kwargs", "test_split",
    "validation_split", "training_split", "fewshot_split", "fewshot_config", "num_fewshot", "output_type",
    "doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter", "fewshot_delimiter",
    "metric_list", "generation_kwargs", "metadata", "should_decontaminate", "doc_to_decontamination_query",
    "repeats",
}  # fmt: skip
_GENERATION = {"until", "max_gen_toks", "do_sample", "temperature"}


class LmEvalTasks:
    """The form of ``lm_eval/tasks/*.yaml``. What is left out here is refused by its name, never passed over."""

    def recognizes(self, keys: Mapping[str, Any]) -> bool:
        """By keys that no task of ours has."""
        return bool({"dataset_path", "doc_to_text", "doc_to_target", "output_type"} & set(keys))

    def read(self, keys: Mapping[str, Any], where: str) -> dict[str, Any]:
        """As ``evals.evaluation_task.TaskForm.read``."""
        kind = self._kind(keys, where)
        task: dict[str, Any] = {
            "name": str(keys.get("task", where)),
            "version": str((keys.get("metadata") or {}).get("version", 0)),
            "kind": kind,
            "items": self._items(keys, where),
            "answer": str(keys.get("doc_to_target", "")),
            "description": keys.get("description", ""),
            "delimiter": keys.get("target_delimiter", " "),
            "metrics": self._metrics(keys, where),
        }
        if kind != "perplexity":
            task |= {"prompt": keys.get("doc_to_text", ""), "few_shot": self._few_shot(keys, where)}
        if kind == "multiple_choice":
            task["choices"] = self._choices(keys, where)
        return task | (self._generation(keys, where) if kind == "generate" else {})

    def _kind(self, keys: Mapping[str, Any], where: str) -> str:
        """What is asked of the model, once there is nothing among the keys that has no counterpart."""
        for name in keys:
            if name not in _KNOWN:
                raise _refused(where, str(name), "it is not read from lm-eval's files")
        kind = _KINDS.get(str(keys.get("output_type", "generate_until")))
        if kind is None:
            raise _refused(where, "output_type", f"expected one of {', '.join(_KINDS)}")
        if keys.get("repeats", 1) != 1:
            raise _refused(where, "repeats", "each item is asked once")
        for name in ("doc_to_text", "description", "target_delimiter", "fewshot_delimiter"):
            if not isinstance(keys.get(name, ""), str):
                raise _refused(where, name, "expected text")
        if not isinstance(keys.get("doc_to_target", ""), str | int):
            raise _refused(where, "doc_to_target", "expected one answer")
        if "{" in keys.get("description", ""):
            raise _refused(where, "description", "templates in it are not read")
        if kind == "perplexity" and keys.get("num_fewshot"):
            raise _refused(where, "num_fewshot", "texts are scored without examples")
        if kind != "multiple_choice" and "doc_to_choice" in keys:
            raise _refused(where, "doc_to_choice", f"it is read for multiple_choice only, and this is {kind}")
        return kind

    def _choices(self, keys: Mapping[str, Any], where: str) -> Any:
        choices = keys.get("doc_to_choice")
        if isinstance(choices, Mapping):
            choices = list(choices.values())
        if not isinstance(choices, list | str):
            raise _refused(where, "doc_to_choice", "expected a list, a column or a template")
        return choices

    def _items(self, keys: Mapping[str, Any], where: str) -> dict[str, Any]:
        files = (keys.get("dataset_kwargs") or {}).get("data_files")
        if keys.get("dataset_path") != "json" or set(keys.get("dataset_kwargs") or {}) != {"data_files"}:
            raise _refused(
                where, "dataset_path", "expected json with dataset_kwargs: {data_files: ...}; hubs are not asked"
            )
        split = keys.get("test_split") or keys.get("validation_split")
        path = files.get(split) if isinstance(files, Mapping) else files
        if not isinstance(path, str):
            raise _refused(where, "data_files", f"expected one file for {split}")
        return {"type": "files", "path": path}

    def _few_shot(self, keys: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        count, config = keys.get("num_fewshot") or 0, keys.get("fewshot_config") or {}
        if not count:
            return None
        if set(config) - {"sampler", "samples"} or config.get("sampler") != "first_n":
            raise _refused(where, "fewshot_config", "expected sampler: first_n; what it draws at random differs")
        found: dict[str, Any] = {"count": count, "separator": keys.get("fewshot_delimiter", "\n\n")}
        if isinstance(config.get("samples"), list):
            return found | {"samples": config["samples"]}
        split, files = keys.get("fewshot_split"), (keys.get("dataset_kwargs") or {}).get("data_files")
        if not split or not isinstance(files, Mapping) or not isinstance(files.get(split), str):
            raise _refused(where, "fewshot_split", "expected samples in fewshot_config, or a split with its own file")
        return found | {"items": {"type": "files", "path": files[split]}}

    def _metrics(self, keys: Mapping[str, Any], where: str) -> list[str] | None:
        found = []
        for each in keys.get("metric_list") or ():
            name = each.get("metric") if isinstance(each, Mapping) else None
            if name not in _METRICS or set(each) - {"metric", "aggregation", "higher_is_better"}:
                raise _refused(where, "metric_list", f"{name}: expected one of {', '.join(_METRICS)} without settings")
            found.append(_METRICS[name])
        return found or None

    def _generation(self, keys: Mapping[str, Any], where: str) -> dict[str, Any]:
        given = keys.get("generation_kwargs") or {}
        for name in given:
            if name not in _GENERATION:
                raise _refused(where, f"generation_kwargs.{name}", f"known are {', '.join(sorted(_GENERATION))}")
        if given.get("do_sample") or given.get("temperature"):
            raise _refused(where, "generation_kwargs", "answers are greedy; leave do_sample and temperature out")
        until = given.get("until", keys.get("fewshot_delimiter", "\n\n"))
        return {
            "until": [until] if isinstance(until, str) else list(until),
            "max_tokens": given.get("max_gen_toks", 256),
        }


def _refused(where: str, key: str, why: str) -> UserError:
    return UserError(f"{where}: {key} cannot be taken over from lm-eval ({why}); write the task in Treadle's own form")

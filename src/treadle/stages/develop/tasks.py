"""Evaluation tasks as steps: items made of documents, and put to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.evaluation_task import EvaluationTask, LoadedTask, load_evaluation_task
from treadle.evals.report import EvaluationReport, commit, evaluation_engine, load_metrics
from treadle.lm.model import Model
from treadle.stages.develop.training import same_base
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset, Example, write_dataset
from treadle.text.examples import make_examples


@step(name="develop.make_task_items", version=1, packages=("jinja2", "pyarrow"))
def make_task_items(
    corpus: Corpus | None,
    dataset: Dataset | None,
    shown: Corpus | None,
    *,
    task: dict[str, Any],
    function: str,
    code: str,
    columns: list[str],
    run: Run,
) -> Dataset:
    """The items of a task as the split ``test``, its worked examples as ``train``; what is shown is not asked."""
    loaded = _loaded(task, function, code, run)
    accounting = Accounting()
    if dataset is not None:
        from treadle.evals.task_items import examples_of

        items = list(examples_of(dataset.examples("test"), loaded))
    elif corpus is not None:
        items, accounting = _made(corpus, loaded, columns[0])
    else:
        raise UserError(f"task {task['name']}: expected items from a source or a dataset")
    worked, items = _worked(loaded, shown, columns[1], items)
    if len(items) < 2:
        raise UserError(_too_few(loaded, len(items), accounting, columns[0]))
    about = {"task": task, "digest": loaded.digest}
    with run.create(Dataset) as made:
        splits = {"test": items, "train": worked}
        write_dataset(made.path, splits, accounting=accounting.to_json(), info=about)
        made.add_documents(name for each in (*items, *worked) for name in each.documents if name.startswith("doc:"))
        run.summary(items=len(items), worked=len(worked))
        return made.commit()


@step(
    name="develop.evaluate_task",
    version=1,
    packages=("openvino-genai", "tokenizers", "torch", "transformers"),
    tolerance=0.05,
)
def evaluate_task(
    model: Model | None,
    items: Dataset,
    *,
    base_model: str,
    fingerprint: str,
    metrics: list[str],
    versions: list[str],
    engine: str,
    system_prompt: str | None,
    run: Run,
) -> EvaluationReport:
    """The model, or a base model, on the items of a task, in 32 bits where it scores."""
    from treadle.evals.results import Evaluation
    from treadle.evals.task_items import items_of
    from treadle.evals.task_runner import TaskRunner
    from treadle.lm.tokenizer import ChatTokenizer

    folder = model.path() if model is not None else same_base(base_model, fingerprint, None).path
    about = items.read_json("dataset.json")
    task = EvaluationTask.model_validate(about["task"])
    asked, tokenizer = items_of(items.examples("test"), task.kind), ChatTokenizer.load(folder)
    scored = task.kind != "generate"
    if scored and any(folder.glob("*.safetensors")):
        engine = "transformers"
    with evaluation_engine(folder, engine, run.scratch, exact=scored, by_torch_too=True) as opened:
        runner = TaskRunner(opened, tokenizer, task, items.examples("train"), system_prompt or "")
        outputs = runner.run(asked, lambda done, total: run.progress(done, total, "items", task.name))
    evaluation = Evaluation(task.name, tuple(asked), tuple(outputs))
    info = {"task": {"name": task.name, "version": task.version, "digest": about["digest"]}}
    documents = [each for each in items.document_ids() if each.startswith("doc:")]
    return commit(run, evaluation, load_metrics(metrics, run), documents, info)


def _loaded(task: Mapping[str, Any], function: str, code: str, run: Run) -> LoadedTask:
    if not function:
        return LoadedTask(EvaluationTask.model_validate(task), {})
    if run.folder is None:
        raise UserError(f"task {function}: names code of a project, and there is no project here")
    loaded = load_evaluation_task(function, run.folder)
    if loaded.code != code:
        raise UserError(f"task {function}: its code changed meanwhile; run the same command again")
    return loaded


def _made(corpus: Corpus, task: LoadedTask, column: str) -> tuple[list[Example], Accounting]:
    from treadle.evals.task_items import make_task_examples

    documents = [document for batch in corpus.documents() for document in batch]
    made = make_examples(documents, lambda documents: make_task_examples(documents, task, column), name=task.task.name)
    return list(made.examples), corpus.accounting().then(made.accounting)


def _worked(
    task: LoadedTask, shown: Corpus | None, column: str, items: list[Example]
) -> tuple[list[Example], list[Example]]:
    """The worked examples, and the items without them."""
    from treadle.evals.task_items import worked_rows
    from treadle.evals.task_template import RowError

    few = task.task.few_shot
    if few is None:
        return [], items
    if few.samples is not None:
        try:
            worked = worked_rows(few.samples, task)
        except RowError as error:
            raise UserError(f"task {task.task.name}: few_shot.samples: {error}") from None
    else:
        worked = items if shown is None else _made(shown, task, column)[0]
    if len(worked) < few.count:
        raise UserError(f"task {task.task.name}: few_shot.count is {few.count}, and there are {len(worked)} examples")
    worked = worked[: few.count]
    told = {(each.text, each.label) for each in worked}
    return worked, [each for each in items if (each.text, each.label) not in told]


def _too_few(task: LoadedTask, count: int, accounting: Accounting, column: str) -> str:
    reasons = [each.reason for each in accounting.quarantined]
    reasons += [sample.reason for samples in accounting.samples.values() for sample in samples]
    why = f"; the first without: {reasons[0]}" if reasons else ""
    return (
        f"task {task.task.name}: {count} items of {accounting.read:,} documents{why}; a score needs two or more, and"
        f" items.fields.text says which column is a row's text (here {column or 'text'})"
    )

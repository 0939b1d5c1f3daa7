"""Benchmark tasks through lm-eval (Gao et al., github.com/EleutherAI/lm-evaluation-harness), the extra `evaluate`.

A task is a YAML file of lm-eval's kind, whose data may be local files (relative to where the command runs), or the name
of one of lm-eval's own, whose data come from the hub. Prompts are put into the chat template that the run trains with,
under its system prompt.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaletrain.errors import ConfigError
from scaletrain.model.sources import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ERROR = "_stderr"
_FEW_SHOT_SEED = 1234  # what lm-eval's own command takes


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task, over so many examples; `standard_error` is None where lm-eval has none."""

    task: str
    metric: str
    value: float
    standard_error: float | None
    examples: int


def check_tasks(tasks: tuple[str, ...]) -> None:
    """Raise ConfigError where lm-eval is not installed, or a file is not there."""
    problems = [
        f"--tasks={task}: there is no such file; name a task's YAML file, or one of lm-eval's own tasks"
        for task in tasks
        if _is_file_name(task) and not Path(task).is_file()
    ]
    if tasks and find_spec("lm_eval") is None:
        problems.append("--tasks: lm-eval is not installed; pip install 'scaletrain[evaluate]'")
    if problems:
        raise ConfigError(problems)


def run_tasks(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: tuple[str, ...],
    *,
    batch_size: int,
    system_prompt: str | None,
) -> tuple[TaskScore, ...]:
    """Run tasks on a loaded model; raises ConfigError where one is not known, or its data cannot be had."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of being given a loaded model
    loaded = _load(tasks)
    make: Any = HFLM
    with quiet_transformers():
        adapter = make(pretrained=model, backend="causal", tokenizer=tokenizer, batch_size=batch_size)
        results: Any = evaluate(
            adapter,
            loaded,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            system_instruction=system_prompt,
            log_samples=False,
            bootstrap_iters=1000,
        )
    found = {**results["results"], **results.get("groups", {})}
    examples = {task: int(count["effective"]) for task, count in results["n-samples"].items()}
    members: Mapping[str, list[str]] = results.get("group_subtasks", {})
    return tuple(
        score
        for task, metrics in found.items()
        for score in _scores(
            task, metrics, examples.get(task, sum(examples.get(each, 0) for each in members.get(task, ())))
        )
    )


def _load(tasks: tuple[str, ...]) -> Any:
    """The tasks that are meant, as lm-eval's evaluate takes them; few-shot examples are the same every time."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=not all(map(_is_file_name, tasks)))  # reading all its own takes seconds
    unknown = [task for task in tasks if not _is_file_name(task) and task not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            [f"--tasks={task}: lm-eval knows no such task; `lm-eval ls tasks` lists them" for task in unknown]
        )
    try:
        loaded = manager.load(list(tasks))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--tasks={', '.join(tasks)}: cannot be loaded: {type(error).__name__}: {error}") from error
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_FEW_SHOT_SEED)
    return loaded


def _scores(task: str, metrics: Mapping[str, Any], examples: int) -> Iterator[TaskScore]:
    """lm-eval's keys are "acc,none" and "acc_stderr,none": a metric, and the filter that answers went through."""
    for key, value in metrics.items():
        name, comma, chosen = key.partition(",")
        if not comma or name.endswith(_ERROR) or not isinstance(value, int | float):
            continue
        error = metrics.get(f"{name}{_ERROR},{chosen}")
        metric = name if chosen == "none" else f"{name} ({chosen})"
        yield TaskScore(task, metric, float(value), float(error) if isinstance(error, int | float) else None, examples)


def _is_file_name(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))

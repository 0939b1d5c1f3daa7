"""Answers to judge: of models, asked here one after the other, or those that `scaletrain evaluate` has kept."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import orjson

from scaletrain import storage
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.judge.contenders import Contender, is_remote
from scaletrain.judge.items import Item, Message, message_problems
from scaletrain.judge.remote_answers import remote_answers
from scaletrain.layout import RunLayout
from scaletrain.log import progress
from scaletrain.model.generate import Sampling, load_for_chat, reply
from scaletrain.model.resolve import resolve_model

_MEASUREMENT = re.compile(r"step-\d{8,}\.json")


def read_prompts(url: str, *, system_prompt: str | None) -> list[tuple[Message, ...]]:
    """Prompts of a file, each once: a .jsonl of {"prompt": ...} or {"messages": [...]}, or else one a line."""
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    prompts: dict[bytes, tuple[Message, ...]] = {}
    problems = []
    for number, line in enumerate(storage.read_lines(url), 1):
        text = line.strip()
        if not text:
            continue
        try:
            messages = _prompt(text, is_json=url.endswith((".jsonl", ".json")))
        except ValueError as exc:
            problems.append(f"{url}:{number}: {exc}")
            continue
        if messages[0]["role"] != "system":
            messages = [*system, *messages]
        prompts.setdefault(orjson.dumps(messages), tuple(messages))
    if problems:
        raise ConfigError(problems[:20])
    if not prompts:
        raise ConfigError(f"{url}: has no prompt; write one a line")
    return list(prompts.values())


def answered(
    prompts: Sequence[tuple[Message, ...]],
    models: Sequence[Contender],
    *,
    root: str,
    sampling: Sampling,
    device: Literal["auto", "cuda", "cpu"],
    key: str | None = None,
) -> list[Item]:
    """Ask every model every prompt; one model is in memory at a time, and the n-th prompt is sampled with seed + n.

    A model that is the address of an OpenAI-compatible server is asked there; `key` is sent to those.
    """
    folders = {each.name: None if is_remote(each.model) else resolve_model(each.model, root=root) for each in models}
    answers: list[dict[str, str]] = [{} for _ in prompts]
    with progress(unit="answers") as bar:
        for each in models:
            task, folder = bar.add_task(each.name, total=len(prompts)), folders[each.name]
            if folder is None:
                made = remote_answers(each.model, prompts, sampling, key=key)
            else:
                made = _answers(folder, prompts, sampling, device)
            for place, answer in enumerate(made):
                answers[place][each.name] = answer.strip()
                bar.advance(task)
    return [Item(messages, own) for messages, own in zip(prompts, answers, strict=True)]


def from_run(run: RunLayout) -> list[Item]:
    """The answers of a run's evaluation: the model before training, and the newest step that was evaluated.

    Raises NotFoundError where one of the two is missing.
    """
    names = [info.url.rpartition("/")[2] for info in storage.list_objects(run.evaluation)]
    steps = sorted(name for name in names if _MEASUREMENT.fullmatch(name))
    if "base.json" not in names or not steps:
        raise NotFoundError(
            f"{run.evaluation}: has no answers of the model before and after training; `scaletrain evaluate` makes them"
        )
    return from_measurements([storage.join(run.evaluation, name) for name in ("base.json", steps[-1])])


def from_measurements(urls: Sequence[str]) -> list[Item]:
    """The answers in files that `scaletrain evaluate` wrote, by the files' names, on the prompts that all have."""
    if len(urls) < 2:
        raise ConfigError(f"{', '.join(urls)}: give the files of two or more evaluations to compare")
    answers: dict[str, dict[bytes, str]] = {}
    for url in urls:
        name = url.rpartition("/")[2].removesuffix(".json")
        if name in answers:
            name = url.removesuffix(".json")
        answers[name] = _measured(url)
    shared = [key for key in next(iter(answers.values())) if all(key in own for own in answers.values())]
    if not shared:
        raise ConfigError(f"{', '.join(urls)}: have no prompt in common; evaluate them with the same evaluate.prompts")
    return [Item(tuple(orjson.loads(key)), {name: own[key] for name, own in answers.items()}) for key in shared]


def _measured(url: str) -> dict[bytes, str]:
    """The answers of one file by the messages they answer."""
    try:
        record: Any = orjson.loads(storage.read_bytes(url))
        system_prompt = record["subject"]["system_prompt"]
        system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
        return {
            orjson.dumps([*system, {"role": "user", "content": sample["prompt"]}]): str(sample["reply"])
            for sample in record["samples"]
        }
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise ConfigError(f"{url}: is not what `scaletrain evaluate` writes ({exc!r})") from exc


def _answers(
    folder: Path, prompts: Sequence[tuple[Message, ...]], sampling: Sampling, device: Literal["auto", "cuda", "cpu"]
) -> Iterator[str]:
    model, tokenizer = load_for_chat(folder, device=device)
    for place, messages in enumerate(prompts):
        seeded = sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + place)
        yield reply(model, tokenizer, messages, seeded)


def _prompt(line: str, *, is_json: bool) -> list[Mapping[str, str]]:
    if not is_json:
        return [{"role": "user", "content": line}]
    record = orjson.loads(line)
    if not isinstance(record, dict) or ("prompt" in record) == ("messages" in record):
        raise ValueError('has to have either "prompt" or "messages"')
    messages = record["messages"] if "messages" in record else [{"role": "user", "content": record["prompt"]}]
    if problems := list(message_problems(messages)):
        raise ValueError("; ".join(problems))
    return [{"role": message["role"], "content": message["content"]} for message in messages]

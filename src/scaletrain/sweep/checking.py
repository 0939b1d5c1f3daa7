"""A sweep is checked whole before anything starts: every field's name, and every combination of values.

Of a range both ends and a value between them are tried. Where lists and ranges have more than 4,096 combinations, each
pair of two parameters' values is: the configuration's rules bind two fields, or three of which one is seldom varied.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any

from scaletrain import config_problems, yaml_text
from scaletrain.config import Config, TrainSection
from scaletrain.config_sweep import MUTABLE, Parameter, SweepSection
from scaletrain.errors import ConfigError
from scaletrain.sweep import space
from scaletrain.sweep.space import Values

_MOST_COMBINATIONS = 4096
_NOT_VARIED = re.compile(r"(name|storage|sweep|serve|track|budget|debug)(\..*)?|train\.evaluate_every_steps")


def check_sweep(config: Config) -> SweepSection:
    """The section of a configuration that can be swept; raises ConfigError with every problem there is."""
    section = config.sweep
    if section is None:
        raise ConfigError(
            "sweep: missing; name the fields that vary, as "
            "sweep: {parameters: {train.learning_rate: {log: [1.0e-5, 1.0e-3]}}, trials: 8}"
        )
    problems = [*_rule_problems(config, section)]
    try:
        parameters = space.in_order(section)
    except ValueError as circle:
        raise ConfigError([*problems, f"sweep.parameters: {circle} wait for one another in `when`"]) from circle
    unknown = list(_unknown_fields(config, section))
    problems += unknown
    if not unknown:
        problems += _combination_problems(config, parameters)
    if problems:
        raise ConfigError(problems)
    return section


def trial_config(config: Config, run: str, values: Mapping[str, Any]) -> Config:
    """The configuration of one trial's run: an ordinary one, with the trial's values; raises ConfigError."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree.pop("sweep", None)
    tree["name"] = run
    if "train.global_batch_size" in values and _has_default_micro_batch(config.train):
        tree["train"].pop("micro_batch_size", None)  # it follows the trial's batch, as it followed this one
    for path, value in values.items():
        _put(tree, path, value)
    return config_problems.validated(tree)


def shown(values: Mapping[str, Any]) -> str:
    """Values as one would write them on the command line."""
    return " ".join(f"{name}={yaml_text.dump_value(value)}" for name, value in values.items())


def _rule_problems(config: Config, section: SweepSection) -> Iterator[str]:
    """Rules between the sweep and the rest of the configuration."""
    for name in section.parameters:
        if _NOT_VARIED.fullmatch(name):
            yield f"sweep.parameters.{name}: cannot differ between the trials of one sweep; remove it"
    if section.metric == "validation_loss" and not config.train.evaluate_every_steps:
        yield "train.evaluate_every_steps: is 0, so there is no validation_loss to compare; set it, or metric: loss"
    if section.search == "tpe" and find_spec("optuna") is None:
        yield "sweep.search: tpe needs Optuna, which is not installed; pip install 'scaletrain[sweep]', or use random"
    if len(config.name) > 80:
        yield f"name: has {len(config.name)} characters; use at most 80, since the trials' runs add to it"
    if section.search != "grid" and section.trials is not None and section.trials < (size := len(space.grid(section))):
        yield f"sweep.trials: got {section.trials}, but the grids have {size} combinations; use at least {size}"
    if section.scheduler.kind == "pbt":
        yield from _population_problems(config, section)


def _population_problems(config: Config, section: SweepSection) -> Iterator[str]:
    trials, every = space.number_of_trials(section), section.scheduler.every_steps
    assert every is not None
    for name, parameter in section.parameters.items():
        if name not in MUTABLE:
            yield f"sweep.parameters.{name}: cannot change in a clone; with pbt these can: {', '.join(MUTABLE)}"
        if parameter.when:
            yield f"sweep.parameters.{name}.when: does not go with pbt; remove it"
    if trials < 2:
        yield f"sweep.trials: got {trials}; pbt needs at least 2"
    if section.at_once < trials:
        yield f"sweep.at_once: got {section.at_once}; pbt needs all {trials} trials at once"
    if every % config.checkpoint.every_steps:
        yield (
            f"checkpoint.every_steps: got {config.checkpoint.every_steps}, which does not divide "
            f"sweep.scheduler.every_steps={every}; a clone begins at a commit"
        )


def _unknown_fields(config: Config, section: SweepSection) -> Iterator[str]:
    for name, parameter in section.parameters.items():
        for problem in _problems(config, {name: space.candidates(parameter)[0]}):
            where = problem.partition(":")[0]
            if "unknown key" in problem and f"{name}.".startswith(f"{where}."):
                yield f"sweep.parameters.{problem}" if where == name else f"sweep.parameters.{name}: {problem}"


def _combination_problems(config: Config, parameters: Sequence[tuple[str, Parameter]]) -> Iterator[str]:
    """Each broken rule once, with the values that all the trials which break it have in common."""
    everything = {name: space.candidates(each) for name, each in parameters}
    tried = list(islice(space.assignments(parameters, everything), _MOST_COMBINATIONS + 1))
    if len(tried) > _MOST_COMBINATIONS:
        tried = list(space.pairs(parameters))
    broken: dict[str, list[Values]] = {}
    for values in tried:
        for problem in _problems(config, values):
            broken.setdefault(problem, []).append(values)
    for problem, trials in broken.items():
        common = {name: value for name, value in trials[0].items() if all(each.get(name) == value for each in trials)}
        where = f"trials with {shown(common)}" if common else "trials"
        yield f"{problem} ({where}: {len(trials)} of the {len(tried)} combinations tried)"


def _has_default_micro_batch(section: TrainSection) -> bool:
    default = TrainSection(steps=1, global_batch_size=section.global_batch_size)  # type: ignore[call-arg]
    return section.micro_batch_size == default.micro_batch_size


def _problems(config: Config, values: Values) -> tuple[str, ...]:
    try:
        trial_config(config, config.name, values)
    except ConfigError as error:
        return error.problems
    return ()


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its dotted name; numbers in it are places in a list."""
    node: Any = tree
    *parents, name = path.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[int(part)] if part.isdecimal() and int(part) < len(node) else {}
        else:
            if not isinstance(node.get(part), (dict, list)):
                node[part] = {}
            node = node[part]
    if isinstance(node, dict):
        node[name] = value
    elif name.isdecimal() and int(name) < len(node):
        node[int(name)] = value

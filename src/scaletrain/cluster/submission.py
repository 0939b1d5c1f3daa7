"""A scaletrain command as a job: checked here first, its configuration resolved and put into the bucket, then sent.

What is sent names the configuration by its URL and holds no secret: those are named by reference, and resolved where
the command runs. Everything that is wrong is found before anything is written or sent.
"""

import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import orjson

from scaletrain import __version__, storage
from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.job_extras import extra_problems
from scaletrain.cluster.jobs import Job, JobLabels, JobRequest, JobServer, layout_of
from scaletrain.cluster.packing_project import is_installed_version, pack_project
from scaletrain.cluster.phases import Phases
from scaletrain.cluster.secrecy import secret_problems, variable_problems
from scaletrain.config import Config, WorkerRange
from scaletrain.config_file import dump_config, load_config
from scaletrain.errors import ClusterError, ConfigError
from scaletrain.layout import RunLayout
from scaletrain.ray_autoscaler import whole_bundles

# Where the command itself runs: on the head, from where it gives work to workers, or on a worker of its own.
_PLACES: Mapping[str, Literal["head", "worker"]] = {
    "prepare": "head",
    "train": "head",
    "evaluate": "worker",
    "export": "worker",
    "doctor": "head",
    "serve": "head",
    "sweep": "head",
}
_PACKED_CONFIG = "submitted.yaml"
_REFERENCE = re.compile(r"[A-Z][A-Z0-9_]*=(?P<service>ssm|secretsmanager|gcp):[\w/+=.@:-]+")
_LOCAL_HINT = "is on this machine, where the cluster cannot reach it; put it into the bucket and give its URL"


@dataclass(frozen=True)
class Command:
    """A scaletrain command line, taken apart: `config` is its CONFIG as given, if it has one."""

    name: str
    arguments: tuple[str, ...]
    config: str | None
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Submission:
    """A checked command, ready to be sent; `config_url` is where its resolved configuration will lie."""

    request: JobRequest
    config_url: str | None
    config_text: str


def check_submission(
    cluster: ClusterFile, command: Command, *, env: Sequence[str] = (), secret_references: Sequence[str] = ()
) -> Submission:
    """Check a command against the configuration and the cluster; raises ConfigError with every problem."""
    problems = list(_command_problems(command))
    problems += secret_problems(command.arguments, place="the command line")
    variables = dict(each.partition("=")[::2] for each in env)
    problems += variable_problems(env)
    problems += _reference_problems(cluster, secret_references)
    config: Config | None = None
    if command.config is not None:
        try:
            config = load_config(command.config, command.overrides)
        except ConfigError as error:
            problems += error.problems
    if config is not None:
        problems += secret_problems([dump_config(config)], place=str(command.config))
        problems += _config_problems(config, cluster)
        problems += extra_problems(command.name, command.arguments, config, cluster)
    if problems:
        raise ConfigError(problems)
    return _submission(cluster, command, config, variables, secret_references)


def send(server: JobServer, submission: Submission, phases: Phases) -> str:
    """Write the configuration into the bucket and send the job; returns the id of the job that does the work.

    That is another one where the same run is being trained already with the same configuration. Raises ConfigError
    where it is being trained with another one.
    """
    request = submission.request
    if request.labels.root:
        storage.configure(request.labels.root, request.labels.options)
    with phases.timed("look for the same run"):
        running = _job_of_the_same_run(server, request.labels)
    if running is not None:
        _check_same_configuration(running, submission)
        return running.id
    if submission.config_url is not None:
        with phases.timed("write the configuration"):
            storage.write_text(submission.config_url, submission.config_text)
    try:
        with phases.timed("upload and submit"):
            server.submit(request)
    except ClusterError:
        if submission.config_url is not None:
            storage.remove(submission.config_url)
        raise
    return request.id


def submitted_config(run: RunLayout, job_id: str) -> str:
    """Where the resolved configuration of a job lies."""
    return storage.join(run.url, "submitted", f"{job_id}.yaml")


def _submission(
    cluster: ClusterFile,
    command: Command,
    config: Config | None,
    variables: Mapping[str, str],
    secret_references: Sequence[str],
) -> Submission:
    name = config.name if config else command.name
    job_id = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    root = config.storage.root if config else ""
    text = dump_config(config) if config else ""
    in_bucket = config is not None and not storage.is_local(root)
    url = submitted_config(layout_of(command.name, root, name), job_id) if in_bucket else None
    packed = [] if config is None or in_bucket else [(_PACKED_CONFIG, text.encode())]
    entry = ["python", "-m", "scaletrain.job_entry"]
    if is_installed_version():
        entry += ["--version", __version__]
    for reference in secret_references:
        entry += ["--secret", reference]
    if config is not None and config.storage.options:
        entry += ["--storage", root, orjson.dumps(config.storage.options).decode()]
    arguments = _with_url(command, url or _PACKED_CONFIG)
    on_gpu = config is not None and _wants_gpu(config, cluster)
    worker = _PLACES[command.name] == "worker"
    return Submission(
        request=JobRequest(
            id=job_id,
            entry_point=shlex.join([*entry, "--", command.name, *arguments]),
            labels=JobLabels(
                command=command.name,
                run=name if config else "",
                root=root,
                options=config.storage.options if config else {},
            ),
            package=pack_project(config, extra=packed),
            env_vars=variables,
            num_cpus=1 if worker and not on_gpu else 0,
            num_gpus=1 if worker and on_gpu else 0,
        ),
        config_url=url,
        config_text=text,
    )


def _with_url(command: Command, url: str) -> list[str]:
    """The command's arguments with its CONFIG replaced, and without the overrides, which are part of it now."""
    arguments = [each for each in command.arguments if each not in command.overrides]
    if command.config is not None:
        arguments[arguments.index(command.config)] = url
    return arguments


def _job_of_the_same_run(server: JobServer, labels: JobLabels) -> Job | None:
    """Two jobs must not train one run; nothing else is kept apart."""
    if labels.command not in ("train", "sweep"):
        return None
    wanted = (labels.command, layout_of(labels.command, labels.root, labels.run))
    same = (job for job in server.jobs() if (job.labels.command, job.run) == wanted)
    return next((job for job in same if not job.has_ended), None)


def _check_same_configuration(running: Job, submission: Submission) -> None:
    assert running.run is not None
    url = submitted_config(running.run, running.id)
    if submission.config_url is None or storage.read_text(url) != submission.config_text:
        name = running.labels.run
        raise ConfigError(
            f"the run {name} is being trained by the job {running.id}, with another configuration: stop it first with "
            f"`scaletrain stop {name}`, or give the new run another name"
        )


def _reference_problems(cluster: ClusterFile, references: Sequence[str]) -> Iterator[str]:
    on_google = cluster.provider == "gcp"
    form = "NAME=gcp:SECRET" if on_google else "NAME=ssm:PARAMETER or NAME=secretsmanager:SECRET"
    for each in references:
        found = _REFERENCE.fullmatch(each)
        if found is None:
            yield f"--secret {each}: write {form}, a reference and not the secret"
        elif (found["service"] == "gcp") != on_google:
            yield f"--secret {each}: the head is on {cluster.provider}; write {form}"


def _command_problems(command: Command) -> Iterator[str]:
    if command.name not in _PLACES:
        yield f"{command.name}: cannot be a job; {', '.join(_PLACES)} can, `scaletrain {command.name}` runs here"
    elif command.config is None and command.name != "doctor":
        yield f"{command.name}: name its CONFIG file, as launch/configs/quickstart.yaml"
    if "--local" in command.arguments:
        yield "--local: would train on the head itself; leave it out"
    if command.name == "export" and (destinations := [each for each in command.arguments[1:2] if _is_path(each)]):
        yield f"DEST {destinations[0]}: would be a folder of the cluster's machine; give a URL in the bucket"


def _is_path(text: str) -> bool:
    return not text.startswith("-") and storage.is_local(text)


def _config_problems(config: Config, cluster: ClusterFile) -> Iterator[str]:
    """What of a configuration holds on this machine only, and what the cluster cannot give."""
    root = config.storage.root
    shared = cluster.bucket_root if cluster.bucket_root and storage.is_local(cluster.bucket_root) else None
    advice = cluster.bucket_root or "s3://my-bucket/scaletrain"
    if root.startswith("memory:"):
        yield f"storage.root: {root} is this process's memory; give the cluster's bucket, as storage.root={advice}"
    elif storage.is_local(root) and not (shared and _is_below(root, shared)):
        yield f"storage.root: {root} is a folder of this machine; give the cluster's bucket, as storage.root={advice}"
    named = [(f"data.corpora.{index}.source", each.source) for index, each in enumerate(config.data.corpora)]
    named += [("data.chat_template", config.data.chat_template)] if config.data.chat_template else []
    if config.model.source is not None and (
        config.model.source.startswith((".", "/", "~"))
        or config.model.source.endswith(".gguf")
        or _exists_here(config.model.source)
    ):
        named.append(("model.source", config.model.source))
    for field, place in named:
        if storage.is_local(place) and not place.startswith("package:") and not (shared and _is_below(place, shared)):
            yield f"{field}: {place} {_LOCAL_HINT}"
    yield from _capacity_problems(config, cluster)


def _capacity_problems(config: Config, cluster: ClusterFile) -> Iterator[str]:
    types = [kind for kind in cluster.workers if kind.resources]
    if not types:
        return  # machines of one's own: Ray finds out what they have
    workers = config.scaling.workers
    field, least = (
        ("scaling.workers.min", workers.min) if isinstance(workers, WorkerRange) else ("scaling.workers", workers)
    )
    bundle = {"CPU": config.scaling.cpus_per_worker}
    if _wants_gpu(config, cluster):
        bundle["GPU"] = config.scaling.gpus_per_worker or 1
    if config.train.device == "cuda" and not any(kind.gpus for kind in types):
        yield f"train.device=cuda: {cluster.path} has no machine type with a GPU; add one, or set train.device=cpu"
        return
    rooms = {kind.name: kind.max_workers * whole_bundles(kind.resources, bundle) for kind in types}
    if sum(rooms.values()) < least:
        shown = ", ".join(f"{name}: {room}" for name, room in rooms.items())
        yield (
            f"{field}: got {least}, but {cluster.path} lets the cluster grow to {sum(rooms.values())} of such workers "
            f"({shown}); raise max_workers there and run `ray up` again, or lower {field}"
        )


def _wants_gpu(config: Config, cluster: ClusterFile) -> bool:
    if config.train.device == "auto":
        return any(kind.gpus and kind.max_workers for kind in cluster.workers)
    return config.train.device == "cuda"


def _is_below(path: str, folder: str) -> bool:
    return storage.local_path(path).is_relative_to(storage.local_path(folder))


def _exists_here(path: str) -> bool:
    return storage.is_local(path) and not path.startswith("package:") and storage.local_path(path).exists()

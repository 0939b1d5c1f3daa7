"""The commands that work on a cluster that is up: submit, jobs, logs, status, stop and down."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from scaletrain.command import Json, examples, is_config_file, print_result, reported
from scaletrain.errors import ClusterError, ConfigError, ScaletrainError
from scaletrain.log import get_logger

if TYPE_CHECKING:
    from scaletrain.cluster.cluster_file import ClusterFile
    from scaletrain.cluster.jobs import Job, JobServer
    from scaletrain.cluster.ssh_tunnel import Host
    from scaletrain.cluster.submission import Command

app = typer.Typer(rich_markup_mode=None)

ClusterPath = Annotated[str, typer.Option("--cluster", metavar="FILE", help="the cluster file that `ray up` took")]
JobOrRun = Annotated[str, typer.Argument(metavar="JOB_OR_RUN", help="a job's id, or a run's name: its newest job")]

log = get_logger(__name__)


@app.command(epilog=examples("scaletrain submit --cluster cluster/aws.yaml -- train run.yaml train.steps=200"))
@reported
def submit(
    cluster: ClusterPath,
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND [ARGUMENTS]", help="a scaletrain command, as one runs it here, behind --"),
    ],
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="show the job's log until it ends")] = True,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="set for the job; never a secret")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME=PLACE",
            help="a secret by reference, read by the head: HF_TOKEN=ssm:/scaletrain/hf-token, secretsmanager:NAME, "
            "or gcp:scaletrain-hf-token on Google Cloud",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a scaletrain command on the cluster, and follow it.

    The job goes on if this machine sleeps or leaves. The configuration is checked here, and its resolved form put into
    the bucket. This project's source goes along, and the packages that the configuration names. Ctrl-C only stops
    following. Exit codes: 0 the job succeeded, 1 it failed, 2 the input was wrong and nothing was sent, 130
    interrupted.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.jobs import connected
    from scaletrain.cluster.phases import Phases
    from scaletrain.cluster.submission import check_submission, send

    if as_json and follow:
        raise ConfigError("--json: goes with --no-follow, since stdout is the job's log otherwise")
    phases = Phases()
    with phases.timed("check the command"):
        file = load_cluster_file(cluster)
        submission = check_submission(file, _parse(command), env=env or (), secret_references=secret or ())
    request = submission.request
    with connected(file, phases) as server:
        job_id = send(server, submission, phases)
        if job_id == request.id:
            _tell(f"job {job_id} is sent to {file.name}: {request.entry_point}", _ways(file, job_id))
        else:
            _tell(f"job {job_id} does this already", _ways(file, job_id))
        if follow:
            _follow(file, job_id, server=server)
            return
    print_result({"job": job_id, "phases_s": phases.seconds}, as_json=as_json, display=lambda: job_id)


@app.command(epilog=examples("scaletrain jobs --cluster cluster/aws.yaml"))
@reported
def jobs(cluster: ClusterPath, as_json: Json = False) -> None:
    """List the cluster's jobs, the newest last.

    Those of an earlier head are not known to this one.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.jobs import connected
    from scaletrain.cluster.status import jobs_table

    with connected(load_cluster_file(cluster)) as server:
        found = server.jobs()
    print_result([job.record() for job in found], as_json=as_json, display=lambda: jobs_table(found))


@app.command(epilog=examples("scaletrain logs my-run -f --cluster cluster/aws.yaml"))
@reported
def logs(
    job: JobOrRun,
    cluster: ClusterPath,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="until the job ends; exit code 1 if it failed")
    ] = False,
    lines: Annotated[int | None, typer.Option("-n", "--lines", help="only the last lines of what there is")] = None,
) -> None:
    """Show what a job has written; with -f go on until it ends.

    It may be followed by many, and any number of times.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.jobs import connected

    file = load_cluster_file(cluster)
    with connected(file) as server:
        found = server.find(job)
        text = server.log_text(found.id) if lines is not None or not follow or found.has_ended else ""
        skip = max(0, len(text.splitlines()) - lines) if lines is not None else 0
        if follow and not found.has_ended:
            _tell(f"job {found.id} is {found.outcome}", _ways(file, found.id))
            _follow(file, found.id, server=server, skip_lines=skip)
            return
    _write("".join(text.splitlines(keepends=True)[skip:]))
    if follow:
        _end_as(found)


@app.command(epilog=examples("scaletrain status --cluster cluster/aws.yaml"))
@reported
def status(cluster: ClusterPath, as_json: Json = False) -> None:
    """Show the cluster: its machines, and the jobs that run.

    Also the machines that are coming, and why others did not come.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.status import read_status, status_display

    found = read_status(load_cluster_file(cluster))
    print_result(found.record(), as_json=as_json, display=lambda: status_display(found))


@app.command(epilog=examples("scaletrain stop my-run --cluster cluster/aws.yaml"))
@reported
def stop(
    job: JobOrRun,
    cluster: ClusterPath,
    now: Annotated[
        bool, typer.Option("--now", help="do not wait for a commit: what cannot be saved in a minute is lost")
    ] = False,
    timeout_minutes: Annotated[float, typer.Option("--timeout-minutes", help="wait this long for the commit")] = 30.0,
) -> None:
    """Stop a job: a run finishes its step and commits it first.

    The same submit goes on from there.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.jobs import connected
    from scaletrain.cluster.stopping import end_now, stop_job

    file = load_cluster_file(cluster)
    with connected(file) as server:
        found = server.find(job)
        if found.has_ended:
            _tell(f"{found.id} has ended already")
        elif now:
            found = end_now(server, found)
        else:
            found = stop_job(server, found, timeout_s=60 * timeout_minutes, say=_tell)
    print(f"{found.id}: {found.outcome}")


@app.command(epilog=examples("scaletrain down cluster/aws.yaml"))
@reported
def down(
    cluster: Annotated[str, typer.Argument(metavar="FILE", help="the cluster file that `ray up` took")],
    yes: Annotated[bool, typer.Option("--yes", help="stop the jobs that run, after their commit, and go on")] = False,
) -> None:
    """End the cluster and all its machines; the bucket stays.

    By `ray down`; refused while a job runs.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.head import NotUpError, is_up, take_down
    from scaletrain.cluster.jobs import serves_jobs

    file, head = load_cluster_file(cluster), None
    try:
        head = _end_jobs(file, stop_them=yes)
    except NotUpError:
        _tell(f"{file.name} has no head that is up; looking for what is left of it")
    except ClusterError as error:
        if not yes:
            raise ClusterError(
                f"{error}\nnothing was ended; --yes ends the machines without asking for their jobs"
            ) from error
        log.warning("%s", error)
    take_down(file)
    if is_up(file):
        raise ClusterError(f"the head of {file.name} is still up after `ray down`; run it again")
    if head is not None and file.provider == "local" and serves_jobs(file, head):
        raise ClusterError(
            f"Ray still runs on {head.address} after `ray down` (what it said above tells why); log in there and run: "
            "ray stop"
        )
    print(f"{file.name} is down")
    _tell(*_what_is_left(file))


def _end_jobs(file: "ClusterFile", *, stop_them: bool) -> "Host":
    """End the jobs that run, or refuse; returns the head."""
    from scaletrain.cluster.jobs import connected
    from scaletrain.cluster.stopping import stop_job

    with connected(file) as server:
        active = [job for job in server.jobs() if not job.has_ended]
        if active and not stop_them:
            raise ConfigError(
                [
                    f"{job.id} is {job.outcome}: stop it with `scaletrain stop {job.id} --cluster {file.path}`, "
                    "or give --yes to stop and save it first"
                    for job in active
                ]
            )
        for job in active:
            stop_job(server, job, timeout_s=1800, say=_tell)
        return server.host


def _what_is_left(file: "ClusterFile") -> list[str]:
    """What `ray down` leaves, and how to get rid of it."""
    left = [f"left: the bucket, with data, models and runs ({file.bucket_root})"] if file.bucket_root else []
    if file.provider == "local":
        return [*left, "left: your machines, without Ray"]
    if file.raw["provider"].get("cache_stopped_nodes", True):
        left.append("left: stopped machines, whose disks cost money; set provider.cache_stopped_nodes: false")
    left.append("left: what `scaletrain cluster init` made, free of charge; --destroy removes it")
    left.append(f"machines or disks that were left behind are found by `scaletrain cluster sweep-leaks {file.path}`")
    return left


def _parse(words: Sequence[str]) -> "Command":
    """Take a command line apart with the very parser that would run it; raises ConfigError where it is wrong."""
    from typer.main import get_command

    from scaletrain.cli import app as whole
    from scaletrain.cluster.submission import Command

    name, arguments = words[0], list(words[1:])
    commands = getattr(get_command(whole), "commands", {})
    if name not in commands:
        raise ConfigError(f"{name}: scaletrain has no such command; see `scaletrain --help`")
    try:
        context = commands[name].make_context(name, list(arguments))
        inner = getattr(commands[name], "commands", {})
        if "run" in inner and arguments[0] not in inner:  # `sweep CONFIG` stands for `sweep run CONFIG`
            context = inner["run"].make_context("run", list(arguments), parent=context)
    except typer.TyperException as error:
        raise ConfigError(f"{name}: {str(error).rstrip('.')}; see `scaletrain {name} --help`") from error
    config = next(
        (value for key in ("config", "run", "model") if is_config_file(value := str(context.params.get(key)))), None
    )
    overrides = tuple(context.params.get("overrides") or ())
    return Command(name=name, arguments=tuple(arguments), config=config, overrides=overrides)


def _follow(file: "ClusterFile", job_id: str, *, server: "JobServer", skip_lines: int = 0) -> None:
    """Show a job's log to its end, and end this command as the job ended."""
    from scaletrain.cluster.following import follow
    from scaletrain.cluster.jobs import connected

    try:
        ended = follow(job_id, lambda: connected(file), write=_write, server=server, skip_lines=skip_lines)
    except KeyboardInterrupt:
        _tell(f"\nno longer following: the job {job_id} goes on", _ways(file, job_id))
        raise typer.Exit(130) from None
    _end_as(ended)


def _end_as(job: "Job") -> None:
    if job.outcome == "succeeded":
        _tell(f"job {job.id} succeeded")
        return
    code = f" with exit code {job.exit_code}" if job.exit_code is not None else ""
    if job.outcome == "stopped":
        raise _JobFailedError(f"the job {job.id} was stopped{code}; the same command goes on from its newest commit")
    raise _JobFailedError(f"the job {job.id} failed{code}: {job.message or 'see its log above'}")


class _JobFailedError(ScaletrainError):
    """The job did not succeed."""


def _ways(file: "ClusterFile", job_id: str) -> str:
    return (
        f"  follow: scaletrain logs {job_id} -f --cluster {file.path}\n"
        f"  stop:   scaletrain stop {job_id} --cluster {file.path}"
    )


def _tell(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""Launching a run: what is missing is prepared, an attempt is claimed, its workers are started and watched.

On a cluster, or on this machine as one, Ray Train runs the loop on `scaling.workers` workers; with `local` the same
loop runs in this process. Ctrl-C and SIGTERM ask for a stop: the step is finished, saved and committed. A second one
does not wait.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from scaletrain import attempts, checkpoint, devices, ray_cluster, storage
from scaletrain.config import Config
from scaletrain.config_file import check_resume, dump_config, load_config
from scaletrain.config_model import quantizes
from scaletrain.cost import check_budget, prices_of, rate_of, read_history
from scaletrain.data.prepare import Prepared, prepare
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.errors import BudgetError, ConfigError, DataError, Interrupted
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.model import attention_choice, quantization, sequence_parallel
from scaletrain.model.kernels import Kernels
from scaletrain.run_inputs import inputs_of, is_there
from scaletrain.stop_request import StopRequest
from scaletrain.this_machine import find_this_machine, looks_rented
from scaletrain.track.alerts import Alerts, alerting
from scaletrain.track.check import check as check_tracking
from scaletrain.track.tracking import Tracking
from scaletrain.train import micro_batch, on_ray, packages
from scaletrain.train.display import Display
from scaletrain.train.job import Accounting, Job
from scaletrain.train.local import run_local
from scaletrain.train.on_worker import on_a_worker
from scaletrain.train.planned import keep_plan
from scaletrain.train.waiting import unshared

_MANY_PASSES = 10  # three are usual
_STOPPING = "stopping: the step is finished and saved first (once more: stop at once, unsaved)"

log = get_logger(__name__)


@dataclass(frozen=True)
class Summary:
    """How a call of `train` ended; `resumed_from` is the step it started at (0: from nothing)."""

    run_url: str
    step: int
    total_steps: int
    resumed_from: int

    @property
    def finished(self) -> bool:
        return self.step >= self.total_steps


def train(
    config: Config,
    *,
    local: bool,
    stop: threading.Event | None = None,
    on_lines: Callable[[Sequence[bytes]], None] | None = None,
    most_workers: Callable[[], int | None] = unshared,
) -> Summary:
    """Train until the last step, `debug.stop_after`, or a signal; the same call goes on where the last one ended.

    Whoever trains from a program may ask for a stop by `stop` instead of a signal, and gets each new line of metrics
    by `on_lines`. Where several runs share machines, `most_workers` says how many workers this one may have now: above
    that it saves and goes on with fewer. Raises Interrupted (after the state was saved), BudgetError (likewise), and
    whatever ScaletrainError ended the run.
    """
    storage.configure(config.storage.root, config.storage.options)
    config = with_absolute_root(config)
    accounting = _accounting(config)
    check_tracking(config.track)
    with (
        alerting(
            config.track.alerts, RunLayout(config.storage.root, config.name), budget_usd=config.budget.usd
        ) as alerts,
        nullcontext() if local else on_ray.cluster(config),
    ):
        device = devices.resolve_device(
            config.train.device, gpus=devices.count_local_gpus() if local else on_ray.count_gpus()
        )
        devices.check_gpus(config, device)
        precision = devices.resolve_precision(config.train.precision, device)
        attention = devices.resolve_attention(config.model.attention, device, precision)
        look = partial(packages.look, config, device)
        is_far = not local and ray_cluster.address() is not None and packages.matter(config, device)
        kernels: Kernels = "plain" if is_far else look()  # at once, where nobody has to be asked
        prepared = _inputs(config, use_ray=not local, check_model=partial(_check_model, config, attention))
        index = load_index(prepared.dataset_url)
        total_steps = count_steps(config, index)
        tell_passes(config, rows=index.splits["train"].rows, total_steps=total_steps)
        job = Job(
            config=config,
            dataset_url=prepared.dataset_url,
            model_url=prepared.model_url,
            attempt=0,
            total_steps=total_steps,
            device=device,
            precision=precision,
            attention=attention,
            kernels=kernels,
            reader="local" if local else "ray",
            accounting=accounting,
        )
        probe = partial(on_a_worker, job, most_workers=most_workers)
        if is_far and _committed_step(job.run) < job.last_step:  # for nothing, no machine is started
            job = replace(job, kernels=probe(look))
        job = replace(job, config=micro_batch.settle(job, on_a_worker=probe))
        return _run(job, index, local=local, alerts=alerts, stop=stop, on_lines=on_lines, most_workers=most_workers)


def _run(
    job: Job,
    index: DatasetIndex,
    *,
    local: bool,
    alerts: Alerts,
    stop: threading.Event | None,
    on_lines: Callable[[Sequence[bytes]], None] | None,
    most_workers: Callable[[], int | None],
) -> Summary:
    name, run = job.config.name, job.run
    first_step = _committed_step(run)
    is_done = first_step >= job.last_step
    seen = 0
    if not (is_done and _has_config(run, job.config)):
        seen = attempts.refuse_a_second(run)  # before anything of a run that lives is touched
        _settle_config(run, job.config)
    keep_plan(job, index)
    if is_done:
        log.info("%s is at step %d of %d already: nothing to do", name, first_step, job.total_steps)
        return Summary(run.url, first_step, job.total_steps, first_step)
    if first_step:
        log.info("going on from step %d", first_step)
    claim = partial(_attempt, seen=seen)
    on_cluster = not local and ray_cluster.address() is not None
    with (
        StopRequest(_STOPPING) as signalled,
        Display(name=name, total_steps=job.total_steps, first_step=first_step) as display,
        Tracking(job.config, run, total_steps=job.total_steps, on_cluster=on_cluster, alerts=alerts) as tracking,
    ):

        def take(lines: Sequence[bytes]) -> None:
            tracking.add(lines)
            if on_lines is not None:
                on_lines(lines)
            display.show(lines)  # last, for the terminal may be gone

        asked = stop or signalled.asked
        if local:
            with claim(job) as claimed:
                run_local(claimed, stop=asked, on_lines=take)
        else:
            on_ray.run_on_ray(job, claim=claim, stop=asked, on_lines=take, most_workers=most_workers)
    step = _committed_step(run)
    if step >= job.total_steps:
        alerts.finished(step)
    if step < job.last_step:
        raise Interrupted(f"stopped at step {step} of {job.total_steps}, saved; the same command goes on from there")
    return Summary(run.url, step, job.total_steps, first_step)


def _accounting(config: Config) -> Accounting:
    """Find out what machines cost; raises ConfigError, before anything is started, where no budget is left for them."""
    budget, run = config.budget, RunLayout(config.storage.root, config.name)
    prices = prices_of(budget)
    asks_cloud = ray_cluster.address() is not None or looks_rented()
    accounting = Accounting(find_this_machine(ask=asks_cloud), prices, asks_cloud)
    is_done = config.train.steps is not None and _committed_step(run) >= config.train.steps
    if (budget.usd is not None or budget.hours is not None) and not is_done:
        rate = rate_of([accounting.driver], prices)
        history = read_history(run, attempts.read_attempts(run).newest + 1, prices)
        try:
            check_budget(budget, history.spent(rate.usd_per_hour), rate)
        except BudgetError as error:
            raise ConfigError(str(error)) from error
    return accounting


def count_steps(config: Config, index: DatasetIndex) -> int:
    """The number of updates in the whole run; `train.epochs` counts passes over the training rows, rounded up."""
    rows = index.splits["train"].rows
    if rows == 0:
        raise DataError("the training split has no rows: lower data.validation, or give more conversations")
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None
    return math.ceil(config.train.epochs * rows / config.train.global_batch_size)


def tell_passes(config: Config, *, rows: int, total_steps: int) -> None:
    """Say how often every training row is seen; a model that sees few rows too often learns them by heart."""
    batch = config.train.global_batch_size
    passes = total_steps * batch / rows
    shown = f"{passes:,.0f}" if passes >= 100 else f"{passes:.3g}"
    told = f"{total_steps:,} steps of {batch:,} rows: {shown} passes over {rows:,} rows"
    if passes > _MANY_PASSES:
        log.warning("%s; it learns them by heart: give more data, or use train.epochs=3", told)
    else:
        log.info("%s", told)


def _inputs(config: Config, *, use_ray: bool, check_model: Callable[[str], None]) -> Prepared:
    """The dataset and the model that the run has begun with, else those that the configuration describes."""
    run = RunLayout(config.storage.root, config.name)
    newest = checkpoint.latest(run)
    if newest is not None and is_there(inputs := inputs_of(run, newest)):
        log.info("going on with %s", inputs.dataset_url)
        check_model(inputs.model_url)
        return inputs
    return prepare(config, use_ray=use_ray, check_model=check_model)


def _check_model(config: Config, attention: devices.Attention, model_url: str) -> None:
    """Refuse a model that cannot be trained as configured, before any data is prepared for it."""
    attention_choice.check_model(model_url, attention)
    if quantizes(config.model.lora):
        quantization.check_model(model_url)
    if config.scaling.sequence_parallel > 1:
        sequence_parallel.check_model(model_url, config.scaling.sequence_parallel)


def _settle_config(run: RunLayout, config: Config) -> None:
    """Store the configuration before step 1; on a resume, refuse a change that alters the mathematics."""
    if not storage.create(run.config, dump_config(config).encode()):
        check_resume(load_config(run.config, ()), config)
        storage.write_text(run.config, dump_config(config))


def _has_config(run: RunLayout, config: Config) -> bool:
    """Whether the run's configuration is kept as it is now."""
    return storage.exists(run.config) and storage.read_bytes(run.config) == dump_config(config).encode()


def _committed_step(run: RunLayout) -> int:
    newest = checkpoint.latest(run)
    return newest.step if newest else 0


@contextmanager
def _attempt(job: Job, *, seen: int) -> Iterator[Job]:
    """Take the next attempt number, and show that this process lives for as long as the attempt lasts.

    It is the one after this process's last attempt, at first after the newest that was `seen` when nobody trained the
    run: whoever has begun since then, while this process waited for machines or stood still, keeps the run.
    """
    if job.attempt:
        attempts.check_claim(job.run, job.attempt, job.nonce)
    nonce = attempts.new_nonce()
    number = attempts.claim(job.run, nonce=nonce, after=job.attempt or seen)
    with attempts.Heartbeat(job.run, number, nonce=nonce):
        yield replace(job, attempt=number, nonce=nonce)


def with_absolute_root(config: Config) -> Config:
    """Workers need not share this process's working directory."""
    section = config.storage.model_copy(update={"root": storage.absolute(config.storage.root)})
    return config.model_copy(update={"storage": section})

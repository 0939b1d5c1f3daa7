"""The forecast of a run, kept in the bucket when it begins: `scaletrain plan --score RUN` holds the run against it."""

import orjson

from scaletrain import ray_autoscaler, ray_cluster, storage
from scaletrain.data.shards import DatasetIndex
from scaletrain.log import get_logger
from scaletrain.machine_types import machine_type
from scaletrain.model.settings import shape_at
from scaletrain.plan import machines
from scaletrain.plan.forecast import way_of
from scaletrain.plan.machines import Machines
from scaletrain.plan.planning import plan_for, prices_of
from scaletrain.plan.work import work_with
from scaletrain.train.job import Job

log = get_logger(__name__)


def keep_plan(job: Job, index: DatasetIndex) -> None:
    """Write the run's forecast, if it has none yet; whatever goes wrong is said, and the run begins without one."""
    try:
        if storage.exists(job.run.plan):
            return
        kind = workers_machines(job.device)
        plan = plan_for(
            job.config,
            shape_at(job.model_url),
            way_of(job.config, kind, num_workers=1 if job.reader == "local" else None),
            kind,
            work=work_with(job.config, job.dataset_url, index),
            beside=(),
            prices=prices_of(job.config),
        )
        storage.create(job.run.plan, orjson.dumps(plan.record(), option=orjson.OPT_INDENT_2))
    except Exception as error:  # noqa: BLE001 -- a run is worth more than its forecast
        log.warning("no forecast of this run was kept: %s", error)


def workers_machines(device: str) -> Machines:
    """The machines that train: those that this cluster's autoscaler starts first, where it tells, else this one."""
    if ray_cluster.address() is not None:
        for each in ray_autoscaler.machine_types():
            has_gpus = bool(each.resources.get("GPU"))
            if each.instance_type and machine_type(each.instance_type) and has_gpus == (device == "cuda"):
                return machines.of_type(each.instance_type)
    return machines.this_machine()

"""`scaletrain cluster check` of a file for Google Cloud: what the project says, before a machine is started."""

from collections.abc import Callable, Iterable
from typing import Any

from scaletrain.cluster.cluster_file import UNFILLED, ClusterFile
from scaletrain.cluster.gcp_account import Project, connect, google_errors
from scaletrain.cluster.gcp_machines import MachineFacts, find_machine_types, image_problems, quota_problems
from scaletrain.cluster.gcp_rights import (
    bucket_problems,
    caller_problems,
    door_problems,
    right_problems,
    service_problems,
)
from scaletrain.cluster.problems import answers, quota_fact
from scaletrain.errors import ScaletrainError
from scaletrain.prices import (
    HourlyCost,
    Machines,
    google_price_list,
    google_price_per_hour,
    hourly_cost,
    or_from_table,
)


def check_gcp(file: ClusterFile, problems: list[str], facts: list[tuple[str, str]]) -> HourlyCost | None:
    """Add to the problems and the facts what Google says of a file; return what an hour costs, None if nobody says."""
    project_id = str(file.raw["provider"].get("project_id") or UNFILLED)
    if project_id.startswith(UNFILLED):
        return None
    try:
        project = connect(project_id, str(file.region))
    except ScaletrainError as error:
        problems.append(str(error))
        return None
    facts.insert(0, ("account", project.described))
    kinds: dict[str, MachineFacts] = {}
    quotas_unknown: list[str] = []

    def types() -> Iterable[str]:
        found, wrong = find_machine_types(project, file)
        kinds.update(found)
        return wrong

    def quotas() -> Iterable[str]:
        wrong, unknown = quota_problems(project, file, kinds)
        quotas_unknown.extend(unknown)
        return wrong

    questions: list[Callable[[], Iterable[str]]] = [
        lambda: service_problems(project),
        lambda: caller_problems(project, file),
        types,
        lambda: image_problems(project, file),
        quotas,
        lambda: door_problems(project, file),
        lambda: bucket_problems(project, file),
        lambda: right_problems(project, file),
    ]
    problems.extend(answers(questions))
    facts.append(quota_fact(problems, quotas_unknown))
    prices, why_not = _price_list(project)
    cost = _cost(prices, file, kinds, region=project.region)
    facts.append(("an hour", "; ".join(filter(None, (cost.display(), why_not)))))
    return cost


def _price_list(project: Project) -> tuple[list[dict[str, Any]], str]:
    """Google's prices; and why there are none, since whoever may not ask for them may train all the same."""
    try:
        with google_errors("looking at the prices"):
            return google_price_list(project.service("cloudbilling"), project.region), ""
    except ScaletrainError as error:
        return [], str(error)


def _cost(
    prices: list[dict[str, Any]], file: ClusterFile, kinds: dict[str, MachineFacts], *, region: str
) -> HourlyCost:
    machines = []
    for kind in file.node_types:
        is_head = kind.name == file.head_node_type
        if kind.instance_type is None or kind.market is None or not (is_head or kind.max_workers):
            continue
        facts = kinds.get(kind.name)
        asked = None
        if facts is not None:
            asked = google_price_per_hour(
                prices,
                kind.instance_type,
                kind.market,
                vcpus=facts.vcpus,
                memory_gib=facts.memory_gib,
                gpus=facts.gpus,
                gpu_type=facts.gpu_type,
            )
        price, as_of = or_from_table(asked, kind.instance_type, kind.market, region=region)
        least, most = (1, 1) if is_head else (kind.min_workers, kind.max_workers)
        machines.append(Machines(kind.instance_type, kind.market, least, most, price, workers=not is_head, as_of=as_of))
    return hourly_cost(machines, max_workers=file.max_workers)

"""`scaletrain cluster check` of a file for AWS: what the account behind it says, before a machine is started."""

from collections.abc import Callable, Iterable

from scaletrain.cluster.aws_account import Account, connect
from scaletrain.cluster.aws_machines import InstanceFacts, find_instance_types, image_problems, quota_problems
from scaletrain.cluster.aws_rights import (
    bucket_problems,
    door_problems,
    right_problems,
    subnet_problems,
    subnet_zone,
)
from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.problems import answers, quota_fact
from scaletrain.errors import ScaletrainError
from scaletrain.prices import PRICE_LIST_REGION, HourlyCost, Machines, hourly_cost, or_from_table, price_per_hour


def check_aws(file: ClusterFile, problems: list[str], facts: list[tuple[str, str]]) -> HourlyCost | None:
    """Add to the problems and the facts what AWS says of a file; return what an hour costs, None if nobody says."""
    try:
        account = connect(str(file.region))
    except ScaletrainError as error:
        problems.append(str(error))
        return None
    facts.insert(0, ("account", account.described))
    kinds: dict[str, InstanceFacts] = {}
    quotas_unknown: list[str] = []

    def types() -> Iterable[str]:
        found, wrong = find_instance_types(account, file)
        kinds.update(found)
        return wrong

    def quotas() -> Iterable[str]:
        wrong, unknown = quota_problems(account, file, kinds)
        quotas_unknown.extend(unknown)
        return wrong

    questions: list[Callable[[], Iterable[str]]] = [
        types,
        lambda: image_problems(account, file),
        quotas,
        lambda: subnet_problems(account, file),
        lambda: door_problems(account, file),
        lambda: bucket_problems(account, file),
        lambda: right_problems(account, file),
    ]
    problems.extend(answers(questions))
    facts.append(quota_fact(problems, quotas_unknown))
    try:
        cost = _cost(account, file)
    except ScaletrainError as error:
        problems.append(str(error))
        return None
    facts.append(("an hour", cost.display()))
    return cost


def _cost(account: Account, file: ClusterFile) -> HourlyCost:
    ec2 = account.client("ec2")
    pricing = account.client("pricing", region=PRICE_LIST_REGION, attempts=1)
    machines = []
    for kind in file.node_types:
        is_head = kind.name == file.head_node_type
        if kind.instance_type is None or kind.market is None or not (is_head or kind.max_workers):
            continue
        zone = subnet_zone(account, kind)
        asked = price_per_hour(
            kind.instance_type, kind.market, region=account.region, zone=zone, ec2=ec2, pricing=pricing
        )
        price, as_of = or_from_table(asked, kind.instance_type, kind.market, region=account.region)
        least, most = (1, 1) if is_head else (kind.min_workers, kind.max_workers)
        machines.append(Machines(kind.instance_type, kind.market, least, most, price, workers=not is_head, as_of=as_of))
    return hourly_cost(machines, max_workers=file.max_workers)

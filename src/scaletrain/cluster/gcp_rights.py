"""May the head, the workers and you do what they must, and nobody else what they must not, on Google Cloud."""

import ipaddress
from collections.abc import Iterator
from typing import Any

from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.gcp_account import Project, execute, get_or_none, google_errors, last_part
from scaletrain.cluster.gcp_bucket import away_from, find_bucket, read_policy
from scaletrain.cluster.gcp_judge import Judge, broad_roles
from scaletrain.cluster.gcp_machines import zone_of
from scaletrain.cluster.gcp_network import rules_for
from scaletrain.cluster.gcp_policies import HEAD_PERMISSIONS, MACHINES_PERMISSIONS
from scaletrain.cluster.gcp_roles import RAYS_ACCOUNT_ID, read_account_policy, read_project_policy

_INIT = "run scaletrain cluster init gcp"
_SERVICES = ("cloudresourcemanager", "compute", "iam", "storage")
_ON_OBJECTS = ("storage.objects.create", "storage.objects.delete", "storage.objects.get")
# What `ray up`, `ray down` and `scaletrain submit` call in your name.
_YOURS = (
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.list",
    "compute.instances.setLabels",
    "iam.serviceAccounts.get",
    "resourcemanager.projects.get",
    "resourcemanager.projects.getIamPolicy",
)
_PUBLIC = {"allUsers", "allAuthenticatedUsers"}


def service_problems(project: Project) -> Iterator[str]:
    """The services that a cluster needs must be switched on in the project."""
    services = project.service("serviceusage").services()
    with google_errors("looking at the project's services"):
        off = [
            f"{name}.googleapis.com"
            for name in _SERVICES
            if execute(services.get(name=f"projects/{project.project_id}/services/{name}.googleapis.com")).get("state")
            != "ENABLED"
        ]
    if off:
        yield (
            f"services: {', '.join(off)} not switched on in {project.project_id}; run: gcloud services enable "
            f"{' '.join(off)} --project {project.project_id}"
        )


def caller_problems(project: Project, file: ClusterFile) -> Iterator[str]:
    """You must be able to start the head, and to give it its account."""
    projects = project.service("cloudresourcemanager").projects()
    with google_errors("asking what you may do"):
        answer = execute(projects.testIamPermissions(resource=project.project_id, body={"permissions": list(_YOURS)}))
    missing = sorted(set(_YOURS) - set(answer.get("permissions", ())))
    accounts = project.service("iam").projects().serviceAccounts()
    for account in sorted(accounts_of(file)):
        name = f"projects/{project.project_id}/serviceAccounts/{account}"
        body = {"permissions": ["iam.serviceAccounts.actAs"]}
        with google_errors(f"asking whether you may use {account}"):
            allowed = get_or_none(accounts.testIamPermissions(resource=name, body=body))
        if allowed is not None and not allowed.get("permissions"):
            missing.append(f"iam.serviceAccounts.actAs on {account}")
    if missing:
        yield (
            f"rights: you lack {', '.join(missing)}, which `ray up` needs; ask the project's owner for them: "
            f"https://console.cloud.google.com/iam-admin/iam?project={project.project_id}"
        )


def bucket_problems(project: Project, file: ClusterFile) -> Iterator[str]:
    """The bucket must be there, in the machines' region, and closed to the public."""
    if file.bucket_root is None:
        return
    name = bucket_name(file)
    with google_errors(f"looking at bucket {name}"):
        bucket = find_bucket(project, name)
        if bucket is None:
            yield f"metadata.bucket: there is no bucket {name}; check the name, or {_INIT}"
            return
        policy = read_policy(bucket)
    if location := away_from(bucket, project.region):
        yield (
            f"metadata.bucket: {name} is in {location}, the machines in {project.region}: slow, and every byte costs; "
            f"use a bucket in {project.region}, or provider.region: {location}"
        )
    with google_errors(f"asking what you may do with bucket {name}"):
        yours = set(bucket.test_iam_permissions([*_ON_OBJECTS, "storage.objects.list"]))
    if lacking := sorted({*_ON_OBJECTS, "storage.objects.list"} - yours):
        yield (
            f"rights: you lack {', '.join(lacking)} on {name}, where `scaletrain submit` puts a job's configuration; "
            f"run: gcloud storage buckets add-iam-policy-binding gs://{name} --role=roles/storage.objectUser "
            "--member=user:YOUR_ADDRESS"
        )
    public = {member for each in policy["bindings"] for member in each["members"]} & _PUBLIC
    if public:
        yield f"metadata.bucket: {name} is open to everybody ({', '.join(sorted(public))}); {_INIT}, which shuts it"
    elif bucket.iam_configuration.public_access_prevention != "enforced":
        yield f"metadata.bucket: nothing keeps {name} from being made public; {_INIT}, which forbids it"


def door_problems(project: Project, file: ClusterFile) -> Iterator[str]:
    """The subnet must be there; its network must shut the machines to the world, and let them reach each other."""
    seen: set[tuple[str, frozenset[str]]] = set()
    for kind in file.node_types:
        tags = frozenset((kind.node_config.get("tags") or {}).get("items") or ())
        for interface in kind.node_config.get("networkInterfaces") or ():
            path = str(interface.get("subnetwork", ""))
            if not path or (path, tags) in seen:
                continue
            seen.add((path, tags))
            subnets = project.service("compute").subnetworks()
            place = {"project": project.project_id, "region": project.region, "subnetwork": last_part(path)}
            with google_errors(f"looking at subnet {last_part(path)}"):
                subnet = get_or_none(subnets.get(**place))
                if subnet is None:
                    yield f"networkInterfaces: {project.region} has no subnet {last_part(path)}; {_INIT}"
                    continue
                rules = list(rules_for(project, last_part(subnet["network"]), set(tags)))
            yield from _rule_problems(rules, tags, str(subnet["ipCidrRange"]))


def right_problems(project: Project, file: ClusterFile) -> Iterator[str]:
    """The head must be able to start workers, both must reach the bucket, and neither may do much more."""
    judge = Judge(project)
    with google_errors("looking at the project's policy"):
        policy = read_project_policy(project)
    bucket_policy = _bucket_policy(project, file)
    accounts = project.service("iam").projects().serviceAccounts()
    there: set[str] = set()
    for account, who in sorted(accounts_of(file).items()):
        with google_errors(f"looking at service account {account}"):
            found = get_or_none(accounts.get(name=f"projects/{project.project_id}/serviceAccounts/{account}"))
        if found is None:
            yield f"serviceAccounts: there is no {account}; {_INIT}"
            continue
        there.add(account)
        if found.get("disabled"):
            yield (
                f"serviceAccounts: {account} is switched off; run: gcloud iam service-accounts enable {account} "
                f"--project {project.project_id}"
            )
        if broad := broad_roles(account, policy):
            yield (
                f"rights: {who} has {', '.join(broad)} in the whole project, so every job could do nearly everything; "
                f"take it away: gcloud projects remove-iam-policy-binding {project.project_id} --role={broad[0]} "
                f"--member=serviceAccount:{account}"
            )
        if bucket_policy is not None:
            yield from _bucket_right_problems(judge, file, account, who, [policy, bucket_policy])
    head = account_of(file.head.node_config)
    if head in there:
        yield from _head_right_problems(judge, file, head, sorted(there - {head}), policy)
    yield from _rays_account_problems(project)


def accounts_of(file: ClusterFile) -> dict[str, str]:
    """Return the service accounts of a file's machines, and whose each is."""
    found: dict[str, str] = {}
    for kind in (*file.workers, file.head):
        if account := account_of(kind.node_config):
            found[account] = "the head" if kind.name == file.head_node_type else "workers"
    return found


def account_of(config: Any) -> str:
    """Return the address of a machine's service account, "" where it has none."""
    accounts = config.get("serviceAccounts") or [{}]
    return str(accounts[0].get("email", ""))


def bucket_name(file: ClusterFile) -> str:
    """The name of the file's bucket."""
    return (file.bucket_root or "").removeprefix("gs://").partition("/")[0]


def _rule_problems(rules: list[dict[str, Any]], tags: frozenset[str], addresses: str) -> Iterator[str]:
    """Read a network's rules in the order in which they count, up to the first that shuts out everything."""
    within = False
    for rule in rules:
        world = "0.0.0.0/0" in rule.get("sourceRanges", ())
        if "denied" in rule:
            if world and any(each["IPProtocol"] == "all" for each in rule["denied"]):
                break
            continue
        within = within or bool(tags & set(rule.get("sourceTags", ()))) or _admits(rule, addresses)
        if world and any(each["IPProtocol"] != "icmp" for each in rule["allowed"]):
            ports = sorted({port for each in rule["allowed"] for port in each.get("ports", ("all ports",))})
            yield (
                f"firewall rule {rule['name']}: {', '.join(ports)} of these machines open to the whole world; remove "
                f"that rule, or {_INIT}, whose rules come before it"
            )
    if not within:
        yield f"firewall: machines cannot reach one another; {_INIT}"


def _admits(rule: dict[str, Any], addresses: str) -> bool:
    """Say whether a rule admits a subnet's own addresses, and not the whole world."""
    own = ipaddress.ip_network(addresses)
    ranges = [ipaddress.ip_network(each) for each in rule.get("sourceRanges", ())]
    return any(each.version == own.version and each.prefixlen and own.subnet_of(each) for each in ranges)  # type: ignore[arg-type]


def _bucket_policy(project: Project, file: ClusterFile) -> dict[str, Any] | None:
    with google_errors(f"looking at the rights on bucket {bucket_name(file)}"):
        bucket = find_bucket(project, bucket_name(file)) if file.bucket_root else None
        return None if bucket is None else read_policy(bucket)


def _bucket_right_problems(
    judge: Judge, file: ClusterFile, account: str, who: str, policies: list[dict[str, Any]]
) -> Iterator[str]:
    root = (file.bucket_root or "").removeprefix("gs://")
    bucket = f"projects/_/buckets/{bucket_name(file)}"
    prefix = root.partition("/")[2]
    probe = f"{bucket}/objects/{prefix}/runs/probe" if prefix else f"{bucket}/objects/runs/probe"
    denied = judge.denied(account, _ON_OBJECTS, policies, resource=probe, kind="storage.googleapis.com/Object")
    denied += judge.denied(
        account, ["storage.objects.list"], policies, resource=bucket, kind="storage.googleapis.com/Bucket"
    )
    if denied:
        yield (
            f"rights: {who} may not use {file.bucket_root} ({account} lacks {', '.join(denied)}); {_INIT}, or allow it "
            f"at https://console.cloud.google.com/storage/browser/{bucket_name(file)};tab=permissions"
        )


def _head_right_problems(
    judge: Judge, file: ClusterFile, head: str, workers: list[str], policy: dict[str, Any]
) -> Iterator[str]:
    project = judge.project
    worker = f"projects/{project.project_id}/zones/{zone_of(file)}/instances/ray-{file.name}-worker-probe"
    # A predefined role of Google's that has all this has the rest, too: only what Ray's calls are named for counts.
    anywhere = [each for each in HEAD_PERMISSIONS if each != "compute.images.useReadOnly"]
    whole = f"projects/{project.project_id}"
    denied = judge.denied(head, anywhere, [policy], resource=whole, kind="cloudresourcemanager.googleapis.com/Project")
    denied += judge.denied(
        head, MACHINES_PERMISSIONS, [policy], resource=worker, kind="compute.googleapis.com/Instance"
    )
    for account in workers:
        with google_errors(f"looking at who may use {account}"):
            use = read_account_policy(project, account)
        if judge.denied(head, ["iam.serviceAccounts.actAs"], [policy, use], resource=account, kind=""):
            denied.append(f"iam.serviceAccounts.actAs on {account}")
    if denied:
        lacking = f"{head} lacks {', '.join(denied)}"
        yield f"rights: the head may not start and stop workers of {file.name} ({lacking}); {_INIT}"


def _rays_account_problems(project: Project) -> Iterator[str]:
    accounts = project.service("iam").projects().serviceAccounts()
    account = f"{RAYS_ACCOUNT_ID}@{project.project_id}.iam.gserviceaccount.com"
    with google_errors(f"looking at service account {account}"):
        found = get_or_none(accounts.get(name=f"projects/{project.project_id}/serviceAccounts/{account}"))
    if found is None:
        yield f"rights: `ray up` would make {account}, which may do nearly everything in the project; {_INIT} before"
    elif not found.get("disabled"):
        yield (
            f"rights: {account} may do nearly everything in the project, and `ray up` makes it so; if no other cluster "
            f"uses it: gcloud iam service-accounts disable {account} --project {project.project_id}"
        )

"""`scaletrain cluster ...`: the cloud account and the cluster file, before and after `ray up`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaletrain.command import Json, examples, load_config_file, print_result, reported
from scaletrain.errors import ConfigError
from scaletrain.log import console, visible

if TYPE_CHECKING:
    from scaletrain.cluster.plan import Step

cluster_app = typer.Typer(
    name="cluster",
    help="Prepare a cloud account and a cluster file, and check both.\n\n"
    "First `init`, then `check`, then `ray up FILE`; jobs go there by `scaletrain submit`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
init_app = typer.Typer(
    name="init",
    help="Make what a cluster file needs, and fill the file.\n\n"
    "The plan is shown first; of the file only the lines marked `# init:` are filled.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cluster_app.add_typer(init_app)

ClusterPath = Annotated[Path, typer.Argument(metavar="FILE", help="a Ray cluster file, as cluster/aws.yaml")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
SshFrom = Annotated[
    list[str] | None,
    typer.Option("--ssh-from", help="who may log in, as 203.0.113.7/32; may be repeated; by default your address"),
]
Destroy = Annotated[bool, typer.Option("--destroy", help="remove all of it instead; the bucket only if empty")]
DestroyBucket = Annotated[
    bool, typer.Option("--destroy-bucket", help="with --destroy: the bucket too, with everything in it")
]


@init_app.command("aws", epilog=examples("scaletrain cluster init aws --region us-east-1"))
@reported
def init_aws(
    file: Annotated[Path, typer.Option("--file", help="the cluster file to fill")] = Path("cluster/aws.yaml"),
    region: Annotated[str | None, typer.Option("--region", help="as us-east-1; by default your profile's")] = None,
    bucket: Annotated[
        str | None, typer.Option("--bucket", help="the storage root, as s3://my-bucket/scaletrain; made if missing")
    ] = None,
    vpc: Annotated[str | None, typer.Option("--vpc", help="a VPC's id instead of the default one")] = None,
    ssh_from: SshFrom = None,
    yes: Yes = False,
    destroy: Destroy = False,
    destroy_bucket: DestroyBucket = False,
) -> None:
    """Prepare your AWS account; a second run changes nothing.

    Makes a bucket, roles, a security group, an S3 endpoint and keys.
    """
    from scaletrain.cluster.aws_init import AwsRequest, plan_aws, plan_destroy_aws

    _refuse_half_a_wish(destroy, destroy_bucket)
    request = AwsRequest(file, region, bucket, vpc, tuple(ssh_from or ()))
    if destroy:
        account, steps = plan_destroy_aws(request, with_objects=destroy_bucket)
    else:
        account, steps = plan_aws(request)
    if _agree_and_do(steps, account.described, yes=yes) and not destroy:
        print(f"Next: scaletrain cluster check {file}, then ray up {file}")


@init_app.command("gcp", epilog=examples("scaletrain cluster init gcp --project my-project --region us-central1"))
@reported
def init_gcp(
    file: Annotated[Path, typer.Option("--file", help="the cluster file to fill")] = Path("cluster/gcp.yaml"),
    project: Annotated[str | None, typer.Option("--project", help="by default the file's, or your own one")] = None,
    region: Annotated[str | None, typer.Option("--region", help="as us-central1; by default the file's")] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", help="as us-central1-a; by default one that has all machine types")
    ] = None,
    bucket: Annotated[
        str | None, typer.Option("--bucket", help="the storage root, as gs://my-bucket/scaletrain; made if missing")
    ] = None,
    network: Annotated[str, typer.Option("--network", help="the VPC network's name")] = "default",
    ssh_from: SshFrom = None,
    yes: Yes = False,
    destroy: Destroy = False,
    destroy_bucket: DestroyBucket = False,
) -> None:
    """Prepare your Google Cloud project; a second run changes nothing.

    Makes a bucket, service accounts, roles, firewall rules and keys.
    """
    from scaletrain.cluster.gcp_init import GcpRequest, plan_destroy_gcp, plan_gcp

    _refuse_half_a_wish(destroy, destroy_bucket)
    request = GcpRequest(file, project, region, zone, bucket, network, tuple(ssh_from or ()))
    if destroy:
        owner, steps = plan_destroy_gcp(request, with_objects=destroy_bucket)
    else:
        owner, steps = plan_gcp(request)
    if _agree_and_do(steps, owner.described, yes=yes) and not destroy:
        print(f"Next: scaletrain cluster check {file}, then ray up {file}")


@init_app.command(
    "local",
    epilog=examples(
        "scaletrain cluster init local --head 10.0.0.1 --worker 10.0.0.2 --ssh-user me --ssh-key ~/.ssh/id_ed25519 "
        "--bucket s3://my-bucket/scaletrain"
    ),
)
@reported
def init_local(
    head: Annotated[str, typer.Option("--head", help="the head's address, as the others reach it")],
    worker: Annotated[list[str], typer.Option("--worker", help="a worker's address; may be repeated")],
    ssh_user: Annotated[str, typer.Option("--ssh-user", help="the user on all machines")],
    ssh_key: Annotated[Path, typer.Option("--ssh-key", help="the private key that opens all machines")],
    bucket: Annotated[str, typer.Option("--bucket", help="the storage root: a bucket, or a folder all machines share")],
    file: Annotated[Path, typer.Option("--file", help="the cluster file to fill")] = Path("cluster/local.yaml"),
    yes: Yes = False,
) -> None:
    """Fill the file for machines that you have.

    Makes Ray's token on this machine; the others are not touched.
    """
    from scaletrain.cluster.init import plan_local

    steps = plan_local(file, head=head, workers=worker, ssh_user=ssh_user, ssh_key=ssh_key, bucket=bucket)
    if _agree_and_do(steps, None, yes=yes):
        print(f"Next: scaletrain cluster check {file}, then ray up {file}")


@cluster_app.command(epilog=examples("scaletrain cluster check cluster/aws.yaml run.yaml"))
@reported
def check(
    file: ClusterPath,
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="a run that shall fit on it")] = None,
    as_json: Json = False,
) -> None:
    """List every problem of a cluster file and its account.

    Each comes with its remedy; and what an hour costs. Nothing is started or changed. Exit code 0: ready for `ray up`;
    2: not ready.
    """
    from scaletrain.cluster.check import check_cluster

    loaded = load_config_file(config, None) if config is not None else None
    found = check_cluster(file, loaded)
    if found.problems and not as_json:
        raise ConfigError([f"{file}: {problem}" for problem in found.problems])
    print_result(found.record(), as_json=as_json, display=found.display)
    if found.problems:
        raise typer.Exit(2)


@cluster_app.command("sweep-leaks", epilog=examples("scaletrain cluster sweep-leaks cluster/aws.yaml --delete"))
@reported
def sweep_leaks(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="leaks of this file's cluster only")] = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="leaks of the cluster of this name only")] = None,
    region: Annotated[
        str | None, typer.Option("--region", help="AWS: by default the file's, or your profile's")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="without FILE: look in this project of Google Cloud, not on AWS")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="remove them for good")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """List what still costs money without a cluster.

    Machines, disks, addresses, network interfaces and, with FILE, images. Clusters that run cost money too, but are no
    leaks: one line each says since when, and how to end it.
    """
    from scaletrain.cluster import sweep
    from scaletrain.cluster.leaks import leaks_table

    found = sweep.find(file, cluster=cluster, region=region, project_id=project)
    record = {"leaks": [each.record() for each in found.leaks], "living": [each.record() for each in found.living]}
    print_result(record, as_json=as_json, display=lambda: leaks_table(found.leaks))
    for each in found.living if not as_json else ():
        print(visible(each.line(str(file or "FILE"))))
    if not found.leaks or not delete:
        return
    if not yes and not typer.confirm(f"Remove these {len(found.leaks)} for good?", err=True):
        raise typer.Exit(1)
    found.remove(tell=_tell)


@cluster_app.command(epilog=examples("scaletrain cluster image cluster/aws.yaml --node-type gpu_spot"))
@reported
def image(
    file: ClusterPath,
    node_type: Annotated[
        str | None, typer.Option("--node-type", help="make it of a worker of this type; by default the first with GPUs")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make an image of a worker, so that later ones start sooner.

    They need no installation. The worker is used up.
    """
    from scaletrain.cluster.cluster_file import load_cluster_file
    from scaletrain.cluster.image import bake

    loaded = load_cluster_file(file)
    if not yes and not typer.confirm(
        "This takes one worker out of the cluster and ends what runs on it. Go on?", err=True
    ):
        raise typer.Exit(1)
    baked = bake(loaded, node_type, tell=_tell)
    print_result(baked.record(), as_json=as_json, display=lambda: baked.advice(loaded))


@cluster_app.command("test", epilog=examples("scaletrain cluster test cluster/aws.yaml"))
@reported
def test_file(
    file: ClusterPath,
    keep: Annotated[bool, typer.Option("--keep", help="keep the logs also where all went well")] = False,
    as_json: Json = False,
) -> None:
    """Bring a cluster file up on an emulated cloud, here.

    By the real `ray up`; free, a minute or two. Needs root on Linux: it makes machines of namespaces. Without, it says
    how to run it in a container.
    """
    from scaletrain.cluster.rehearsal import rehearse

    done = rehearse(file, keep=keep, on_phase=lambda phase: _tell(f"{phase.status:7} {phase.name}: {phase.found}"))
    print_result(done.record(), as_json=as_json, display=done.display)
    if not done.passed:
        raise typer.Exit(1)


def _refuse_half_a_wish(destroy: bool, destroy_bucket: bool) -> None:
    if destroy_bucket and not destroy:
        raise ConfigError("--destroy-bucket goes with --destroy; add it, or remove this")


def _agree_and_do(steps: "list[Step]", account: str | None, *, yes: bool) -> bool:
    """Show a plan, ask, and carry it out; return whether all is done."""
    from scaletrain.cluster.plan import carry_out, plan_table, to_do

    console(stderr=False).print(plan_table(steps, account))
    if not to_do(steps):
        print("nothing to do")
        return True
    if not yes and not typer.confirm("Do this?", err=True):
        raise typer.Exit(1)
    carry_out(steps, tell=_tell)
    return True


def _tell(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)

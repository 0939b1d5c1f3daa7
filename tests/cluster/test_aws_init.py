"""aws_init: the plan comes first, a second run changes nothing, --destroy leaves nothing; against an emulated EC2."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from cluster_projects import IMAGE, OFFICE, REGION, ClusterProject, make_project, mutations_of
from scaletrain.cluster import auth_token, aws_init
from scaletrain.cluster.aws_account import connect
from scaletrain.cluster.aws_init import AwsRequest, plan_aws, plan_destroy_aws
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.cluster.plan import Step, carry_out, to_do
from scaletrain.errors import ClusterError, ConfigError


@pytest.fixture
def project(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterProject:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return make_project(tmp_path)


def request(project: ClusterProject, **changes: Any) -> AwsRequest:
    values: dict[str, Any] = {"region": REGION, "bucket": f"s3://{project.cluster}/root", "ssh_from": (OFFICE,)}
    return AwsRequest(project.file, **{**values, **changes})


def carry_out_quietly(steps: list[Step]) -> None:
    carry_out(steps, tell=lambda line: None)


def initialised(project: ClusterProject) -> None:
    carry_out_quietly(plan_aws(request(project))[1])


def test_planning_changes_nothing(project: ClusterProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account, this machine and the file are as before until the user agreed."""
    before = project.file.read_bytes()
    account = connect(REGION)
    calls = mutations_of(account.session)
    monkeypatch.setattr(aws_init, "connect", lambda region: account)
    _, steps = plan_aws(request(project))
    assert (calls, project.file.read_bytes() == before) == ([], True)
    assert not auth_token.folder_of(project.cluster).exists()
    assert len(to_do(steps)) >= 8


def test_a_filled_file_is_one_that_ray_and_we_accept(project: ClusterProject) -> None:
    """Every place is filled with what was made, and the comments are still there."""
    comments = project.file.read_text().count("#")
    initialised(project)
    file = load_cluster_file(project.file)
    assert (file.region, file.bucket_root) == (REGION, f"s3://{project.cluster}/root")
    assert file.head.node_config["IamInstanceProfile"] == {"Name": f"{project.cluster}-{REGION}-head"}
    assert all(kind.node_config["IamInstanceProfile"]["Name"].endswith("-worker") for kind in file.workers)
    assert file.ssh_private_key == auth_token.key_path(project.cluster)
    assert project.file.read_text().count("#") == comments


def test_a_second_run_makes_no_call_that_could_change_anything(
    project: ClusterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step finds its thing as it should be."""
    initialised(project)
    account = connect(REGION)
    calls = mutations_of(account.session)
    monkeypatch.setattr(aws_init, "connect", lambda region: account)
    before = project.file.read_bytes()
    _, steps = plan_aws(request(project))
    carry_out_quietly(steps)
    assert (to_do(steps), calls, project.file.read_bytes() == before) == ([], [], True)


def test_a_second_run_needs_no_options(project: ClusterProject) -> None:
    """Region and bucket are read from the file."""
    initialised(project)
    _, steps = plan_aws(AwsRequest(project.file, ssh_from=(OFFICE,)))
    assert to_do(steps) == []


def test_the_bucket_is_versioned_private_encrypted_and_keeps_current_objects(project: ClusterProject) -> None:
    """The lifecycle touches unfinished uploads and noncurrent versions, nothing else."""
    initialised(project)
    s3 = boto3.client("s3", region_name=REGION)
    name = {"Bucket": project.cluster}
    assert s3.get_bucket_versioning(**name)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(**name)["PublicAccessBlockConfiguration"].values())
    assert s3.get_bucket_encryption(**name)["ServerSideEncryptionConfiguration"]["Rules"]
    rules = s3.get_bucket_lifecycle_configuration(**name)["Rules"]
    actions = {key for rule in rules for key in rule} - {"ID", "Status", "Filter", "Prefix"}
    assert actions == {"AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"}


def test_rules_of_an_existing_bucket_stay(project: ClusterProject) -> None:
    """A bucket may have been there before, with its owner's own lifecycle."""
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket=project.cluster)
    rule = {"ID": "mine", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    s3.put_bucket_lifecycle_configuration(Bucket=project.cluster, LifecycleConfiguration={"Rules": [rule]})
    initialised(project)
    rules = s3.get_bucket_lifecycle_configuration(Bucket=project.cluster)["Rules"]
    assert "mine" in [each["ID"] for each in rules] and len(rules) == 3


def test_a_bucket_in_another_region_is_refused(project: ClusterProject) -> None:
    """Training through an ocean is slow and dear."""
    place = {"LocationConstraint": "eu-west-1"}
    boto3.client("s3", region_name="eu-west-1").create_bucket(Bucket=project.cluster, CreateBucketConfiguration=place)
    with pytest.raises(ConfigError, match=f"{project.cluster} is in eu-west-1 and the cluster in us-east-1"):
        plan_aws(request(project))


def ssh_rules(project: ClusterProject) -> list[str]:
    ec2 = boto3.client("ec2", region_name=REGION)
    (group,) = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [project.cluster]}])[
        "SecurityGroups"
    ]
    rules = [rule for rule in group["IpPermissions"] if rule["IpProtocol"] == "tcp"]
    assert all(rule["FromPort"] == rule["ToPort"] == 22 for rule in rules)
    assert any(
        pair["GroupId"] == group["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]
    )
    return sorted(entry["CidrIp"] for rule in rules for entry in rule["IpRanges"])


def test_only_the_callers_address_may_log_in(project: ClusterProject) -> None:
    """And machines reach one another; moving house moves the door."""
    initialised(project)
    assert ssh_rules(project) == [OFFICE]
    carry_out_quietly(plan_aws(request(project, ssh_from=("198.51.100.0/24",)))[1])
    assert ssh_rules(project) == ["198.51.100.0/24"]


def test_a_door_that_somebody_opened_to_the_world_is_shut_again(project: ClusterProject) -> None:
    """Rules for other addresses stay."""
    initialised(project)
    ec2 = boto3.client("ec2", region_name=REGION)
    (group,) = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": [project.cluster]}])[
        "SecurityGroups"
    ]
    for address in ("0.0.0.0/0", "192.0.2.1/32"):
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": address}]}
        ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[rule])
    initialised(project)
    assert ssh_rules(project) == ["192.0.2.1/32", OFFICE]


@pytest.mark.parametrize(("address", "message"), [("0.0.0.0/0", "the whole world"), ("home", "is no address")])
def test_an_open_or_wrong_address_is_refused(project: ClusterProject, address: str, message: str) -> None:
    """Even when asked for."""
    with pytest.raises(ConfigError, match=message):
        plan_aws(request(project, ssh_from=(address,)))


def policy_of(role: str) -> dict[str, Any]:
    iam = boto3.client("iam", region_name=REGION)
    document = iam.get_role_policy(RoleName=role, PolicyName="scaletrain")["PolicyDocument"]
    return document if isinstance(document, dict) else dict(json.loads(document))


def actions_of(statement: dict[str, Any]) -> list[str]:
    action = statement["Action"]
    return action if isinstance(action, list) else [action]


def test_workers_may_use_the_bucket_and_nothing_else(project: ClusterProject) -> None:
    """A job runs code of others; it cannot start machines."""
    initialised(project)
    statements = policy_of(f"{project.cluster}-{REGION}-worker")["Statement"]
    assert {action.partition(":")[0] for each in statements for action in actions_of(each)} == {"s3"}


def test_machines_of_another_cluster_are_out_of_the_heads_reach(project: ClusterProject) -> None:
    """Whatever changes a machine is bound to the cluster's name, and only one role can be passed on."""
    initialised(project)
    for statement in policy_of(f"{project.cluster}-{REGION}-head")["Statement"]:
        actions = actions_of(statement)
        if "ec2:TerminateInstances" in actions:
            assert statement["Condition"]["StringEquals"] == {"ec2:ResourceTag/ray-cluster-name": project.cluster}
        if "iam:PassRole" in actions:
            assert statement["Resource"].endswith(f":role/{project.cluster}-{REGION}-worker")
        assert not any(action.endswith("*") for action in actions)


def test_a_right_taken_away_is_given_back(project: ClusterProject) -> None:
    """Also one that somebody widened."""
    initialised(project)
    iam = boto3.client("iam", region_name=REGION)
    role = f"{project.cluster}-{REGION}-worker"
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=role, PolicyName="scaletrain", PolicyDocument=json.dumps(wide))
    initialised(project)
    assert policy_of(role) != wide


def test_a_role_of_somebody_else_is_not_touched(project: ClusterProject) -> None:
    """It bears no tag of ours."""
    iam = boto3.client("iam", region_name=REGION)
    iam.create_role(RoleName=f"{project.cluster}-{REGION}-head", AssumeRolePolicyDocument="{}")
    with pytest.raises(ConfigError, match="already that is not this cluster's"):
        plan_aws(request(project))


def left_over(project: ClusterProject) -> list[str]:
    """Everything in the account that bears the cluster's tag or name."""
    tagging = boto3.client("resourcegroupstaggingapi", region_name=REGION)
    filters = [{"Key": "scaletrain:cluster", "Values": [project.cluster]}]
    found = [each["ResourceARN"] for each in tagging.get_resources(TagFilters=filters)["ResourceTagMappingList"]]
    iam, s3 = boto3.client("iam", region_name=REGION), boto3.client("s3", region_name=REGION)
    found += [role["RoleName"] for role in iam.list_roles()["Roles"] if project.cluster in role["RoleName"]]
    profiles = iam.list_instance_profiles()["InstanceProfiles"]
    found += [each["InstanceProfileName"] for each in profiles if project.cluster in each["InstanceProfileName"]]
    return found + [each["Name"] for each in s3.list_buckets()["Buckets"] if each["Name"] == project.cluster]


def test_destroy_leaves_nothing(project: ClusterProject) -> None:
    """Not in the account, not on this machine, and the file fails closed again."""
    initialised(project)
    assert left_over(project)
    carry_out_quietly(plan_destroy_aws(request(project), with_objects=False)[1])
    assert left_over(project) == []
    assert not auth_token.folder_of(project.cluster).exists()
    with pytest.raises(ConfigError, match="not filled yet"):
        load_cluster_file(project.file)
    _, steps = plan_destroy_aws(request(project), with_objects=False)
    assert to_do(steps) == []


def test_destroy_keeps_a_bucket_with_data_unless_asked_twice(project: ClusterProject) -> None:
    """Checkpoints are worth more than tidiness. What is asked twice goes whole, over all pages of its listing."""
    initialised(project)
    s3 = boto3.client("s3", region_name=REGION)
    for number in range(1005):
        s3.put_object(Bucket=project.cluster, Key=f"root/data/{number}", Body=b"")
    for data in (b"old", b"new"):
        s3.put_object(Bucket=project.cluster, Key="root/runs/x", Body=data)
    s3.delete_object(Bucket=project.cluster, Key="root/runs/x")
    s3.create_multipart_upload(Bucket=project.cluster, Key="root/half")
    _, steps = plan_destroy_aws(request(project), with_objects=False)
    assert [step.todo for step in steps if step.what.startswith("bucket")] == ["keep"]
    carry_out_quietly(plan_destroy_aws(request(project), with_objects=True)[1])
    assert left_over(project) == []


def start_machine(project: ClusterProject, **tags: str) -> str:
    spec = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
    answer = boto3.client("ec2", region_name=REGION).run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m5.large", TagSpecifications=spec
    )
    return str(answer["Instances"][0]["InstanceId"])


def test_destroy_waits_for_ray_down(project: ClusterProject) -> None:
    """Nothing is taken from under running machines."""
    initialised(project)
    start_machine(project, **{"ray-cluster-name": project.cluster})
    with pytest.raises(ClusterError, match=r"still run; first: ray down .*aws\.yaml"):
        plan_destroy_aws(request(project), with_objects=False)


def test_destroy_waits_for_a_machine_that_ray_does_not_see(project: ClusterProject) -> None:
    """One that was taken out of the cluster for an image has our tag still."""
    initialised(project)
    start_machine(project, **{"ray-cluster-name": f"{project.cluster}-image", "scaletrain:cluster": project.cluster})
    with pytest.raises(ClusterError, match=r"are ended by `scaletrain cluster sweep-leaks .*aws\.yaml --delete`"):
        plan_destroy_aws(request(project), with_objects=False)


def test_a_cluster_with_machines_is_not_moved_to_another_region(project: ClusterProject) -> None:
    """Ray would look for them in the new region only, and they would run on."""
    initialised(project)
    machine = start_machine(project, **{"ray-cluster-name": project.cluster})
    moved = request(project, region="us-west-2", bucket=f"s3://{project.cluster}-2/root")
    with pytest.raises(ClusterError, match=rf"still in us-east-1 \({machine}\): `scaletrain down .*aws\.yaml` first"):
        plan_aws(moved)
    with pytest.raises(ClusterError, match="still in us-east-1"):
        plan_destroy_aws(moved, with_objects=False)
    boto3.client("ec2", region_name=REGION).terminate_instances(InstanceIds=[machine])
    assert to_do(plan_aws(moved)[1])


def test_a_type_that_no_zone_has_is_named(project: ClusterProject) -> None:
    """Before anything is made."""
    project.edit(("g6.xlarge  #", "g6.xlargest  #"))
    with pytest.raises(ConfigError, match=r"no zone of us-east-1 has all .* lacks g6.xlargest"):
        plan_aws(request(project))


def test_a_key_pair_of_another_machine_is_not_overwritten(project: ClusterProject) -> None:
    """Its private half is elsewhere, and may be in use."""
    initialised(project)
    auth_token.key_path(project.cluster).unlink()
    with pytest.raises(ConfigError, match="copy it from the machine where init ran first"):
        plan_aws(request(project))

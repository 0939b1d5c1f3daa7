"""check: all that is wrong with a file, its account and a run on it comes at once; a good file has no problems."""

import json
import re
from pathlib import Path

import boto3
import pytest

from cluster_projects import IMAGE, OFFICE, REGION, ClusterProject, make_project, use_known_image
from scaletrain.cluster.aws_init import AwsRequest, plan_aws
from scaletrain.cluster.check import check_cluster, run_problems
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.cluster.plan import carry_out
from scaletrain.config_file import parse_config

RUN = """
name: chat
storage: {{root: "{root}"}}
model: {{source: x}}
data: {{corpora: [{{format: messages, source: y}}]}}
train: {{steps: 1}}
scaling: {{workers: {{min: {least}, max: 64}}}}
"""


@pytest.fixture
def project(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterProject:
    """A filled file, with images that the emulated EC2 has."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = make_project(tmp_path)
    use_known_image(made)
    request = AwsRequest(made.file, REGION, f"s3://{made.cluster}/root", None, (OFFICE,))
    carry_out(plan_aws(request)[1], tell=lambda line: None)
    return made


def test_a_file_filled_by_init_has_no_problems(project: ClusterProject) -> None:
    """And says what it would be."""
    found = check_cluster(project.file)
    assert found.problems == ()
    facts = dict(found.facts)
    assert facts["head"] == "1 x m7i.xlarge, on-demand"
    assert facts["gpu_spot"] == "0 to 4 x g6.xlarge, spot"


def test_prices_that_aws_does_not_tell_are_the_dated_table_s(project: ClusterProject) -> None:
    """The emulated AWS has no price list: the table tells, and is said to."""
    found = check_cluster(project.file)
    assert found.cost is not None and found.cost.at_least == pytest.approx(0.2016)
    told = dict(found.facts)["an hour"]
    assert "the cloud did not tell, so the dated table did: " in told and "m7i.xlarge (on-demand) of 20" in told
    assert found.record()["usd_per_hour_at_least"] == pytest.approx(0.2016)


def test_all_that_is_wrong_comes_at_once(project: ClusterProject) -> None:
    """Nobody has to run check seven times: secrets, the world, rights, type, image and numbers together."""
    project.edit(
        ("InstanceType: g6.xlarge ", "InstanceType: g6.xlargee "),
        (IMAGE, "resolve:ssm:/aws/service/none"),
        ("cache_stopped_nodes: false", "cache_stopped_nodes: false  # AKIAIOSFODNN7EXAMPLE"),
        ("metadata:  #", "# x\nmetadata:  #"),
    )
    worker = f"{project.cluster}-{REGION}-worker"
    iam = boto3.client("iam", region_name=REGION)
    iam.delete_role_policy(RoleName=worker, PolicyName="scaletrain")
    ec2 = boto3.client("ec2", region_name=REGION)
    group = load_cluster_file(project.file).head.node_config["SecurityGroupIds"][0]
    rule = {"IpProtocol": "tcp", "FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    run = parse_config(RUN.format(root=f"s3://{project.cluster}/root", least=9), source="run")
    problems = check_cluster(project.file, run).problems
    for part in (
        "looks like an AWS access key",
        "us-east-1 has no g6.xlargee; did you mean g6.xlarge?",
        "us-east-1 has no image parameter /aws/service/none",
        f"may not use s3://{project.cluster}/root (role {worker}: s3:DeleteObject not allowed",
        "port 8265 is open to the whole world",
        "chat needs at least 9 workers",
    ):
        assert any(part in problem for problem in problems), (part, problems)


def test_a_bucket_that_is_gone_or_elsewhere_is_found(project: ClusterProject) -> None:
    """Each with what to do."""
    text = project.file.read_text()
    project.file.write_text(re.sub(r"bucket: \S+", "bucket: s3://none-of-this-name/root", text))
    assert any("there is no bucket none-of-this-name" in each for each in check_cluster(project.file).problems)
    far = f"{project.cluster}-far"
    place = {"LocationConstraint": "eu-west-1"}
    boto3.client("s3", region_name="eu-west-1").create_bucket(Bucket=far, CreateBucketConfiguration=place)
    project.file.write_text(re.sub(r"bucket: \S+", f"bucket: s3://{far}/root", text))
    assert any(f"{far} is in eu-west-1" in each for each in check_cluster(project.file).problems)


def test_a_head_that_may_not_start_workers_is_found(project: ClusterProject) -> None:
    """The cluster would come up and then wait for ever."""
    iam = boto3.client("iam", region_name=REGION)
    only_s3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    role = f"{project.cluster}-{REGION}-head"
    iam.put_role_policy(RoleName=role, PolicyName="scaletrain", PolicyDocument=json.dumps(only_s3))
    problems = check_cluster(project.file).problems
    assert any("the head may not start and stop workers" in each and "ec2:RunInstances" in each for each in problems)


def test_a_machine_smaller_than_the_file_says_is_found(project: ClusterProject) -> None:
    """Ray would wait for CPUs that never come."""
    project.edit(("resources: {CPU: 8}", "resources: {CPU: 64}"))
    assert any("CPU: 64, but a m7i.2xlarge has 8" in each for each in check_cluster(project.file).problems)


def test_a_gpu_that_torch_cannot_use_is_found(project: ClusterProject) -> None:
    """Nothing would run on it, and its price is that of others."""
    project.edit(("InstanceType: g6.xlarge ", "InstanceType: p3dn.24xlarge "))
    problems = check_cluster(project.file).problems
    assert any("gpu_spot: p3dn.24xlarge: its GPU, V100, is too old" in each for each in problems), problems


def test_without_credentials_the_file_is_still_checked(
    project: ClusterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more problem in the list, not the only one."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    project.edit(("Encrypted: true", "Encrypted: false"))
    problems = check_cluster(project.file).problems
    assert any("is not encrypted" in each for each in problems)
    assert any("no AWS credentials on this machine" in each for each in problems)


def test_a_run_that_fits_has_no_problem(project: ClusterProject) -> None:
    """Four workers on four machines."""
    file = load_cluster_file(project.file)
    assert list(run_problems(file, parse_config(RUN.format(root=file.bucket_root, least=4), source="run"))) == []


def test_a_run_that_keeps_its_data_elsewhere_is_found(project: ClusterProject) -> None:
    """The machines' roles reach one storage root only."""
    file = load_cluster_file(project.file)
    for root, part in (("s3://other/x", "keeps its data in s3://other/x"), ("bucket", "is a folder of one machine")):
        (problem,) = run_problems(file, parse_config(RUN.format(root=root, least=1), source="run"))
        assert part in problem


def test_machines_of_ones_own_need_no_account(tmp_path: Path) -> None:
    """Only the file is looked at."""
    found = check_cluster(make_project(tmp_path, kind="local").file)
    assert dict(found.facts)["account"] == "not looked at: local"

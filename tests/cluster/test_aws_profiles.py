"""aws_profiles: once init is over, EC2 knows the profiles that it has made; against one that learns of them late."""

import socket
import threading
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from cluster_projects import OFFICE, REGION, ClusterProject, make_project, use_known_image
from scaletrain.cluster.aws_account import connect
from scaletrain.cluster.aws_init import AwsRequest, plan_aws
from scaletrain.cluster.aws_profiles import waiting_step
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.cluster.plan import carry_out
from scaletrain.emulator import aws_account
from scaletrain.emulator.aws_account import LAPTOP_ACCESS_KEY, Account
from scaletrain.emulator.aws_api import Gate, serve


@pytest.fixture
def project(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterProject:
    """A project whose user is at the emulated EC2's gate, behind which is the state of moto's own server."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(Gate(DomainDispatcherApplication(create_backend_app), Account(REGION), threading.Event()), port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LAPTOP_ACCESS_KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = make_project(tmp_path)
    use_known_image(made)
    return made


def launch(project: ClusterProject) -> str:
    """Ask for the head as `ray up` does; returns EC2's answer to what would be a launch."""
    config = load_cluster_file(project.file).head.node_config
    wanted = {key: config[key] for key in ("ImageId", "InstanceType", "IamInstanceProfile")}
    with pytest.raises(ClientError) as raised:
        boto3.Session().client("ec2", region_name=REGION).run_instances(**wanted, MinCount=1, MaxCount=1, DryRun=True)
    return str(raised.value.response["Error"]["Code"])


def test_a_machine_may_be_started_as_soon_as_init_is_over(
    project: ClusterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made is known to EC2; the plan says beforehand that this is waited for."""
    monkeypatch.setattr(aws_account, "PROFILE_UNKNOWN_S", 3600)
    _, steps = plan_aws(AwsRequest(project.file, REGION, f"s3://{project.cluster}/root", None, (OFFICE,)))
    told: list[str] = []
    carry_out(steps[:-1], tell=told.append)
    assert launch(project) == "InvalidParameterValue"
    threading.Timer(1, monkeypatch.setattr, (aws_account, "PROFILE_UNKNOWN_S", 0)).start()
    carry_out(steps[-1:], tell=told.append)
    assert (launch(project), told[-1]) == ("DryRunOperation", "wait until EC2 knows the profiles")


def test_what_ec2_says_of_something_else_is_not_waited_for(
    project: ClusterProject, caplog: pytest.LogCaptureFixture
) -> None:
    """An image that is not there is for `check` to tell; that nothing is known of the profile is said."""
    iam = boto3.Session().client("iam", region_name=REGION)
    iam.create_role(RoleName=project.cluster, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName=project.cluster)
    iam.add_role_to_instance_profile(InstanceProfileName=project.cluster, RoleName=project.cluster)
    config = {"ImageId": "resolve:ssm:/no/such/parameter", "InstanceType": "m7i.xlarge"}
    step = waiting_step(connect(REGION), [project.cluster], node_config=config, subnet_id="subnet-1")
    carry_out([step], tell=lambda line: None)
    assert "EC2 does not say whether it knows" in caplog.text

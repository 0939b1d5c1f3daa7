"""The API: what a launch may ask for, and how it is refused; who called what."""

import json

import pytest
from launching import IMAGE, KEY_NAME, boto, launch, make_key, profile

from commands import wait_for
from scaletrain.emulator.aws_api import DIES_AT_BOOT
from scaletrain.emulator.ec2_process import ENDPOINT_URL
from scaletrain.emulator.emulated_cloud import EmulatedCloud
from scaletrain.errors import ClusterError

TYPE = {"InstanceType": "m7i.large", "MinCount": 1, "MaxCount": 1}


def refusal(cloud: EmulatedCloud, **arguments: object) -> str:
    """Return the code with which a launch is refused."""
    with pytest.raises(ClusterError) as raised:
        cloud.call("ec2", "run_instances", **{**TYPE, "ImageId": IMAGE, **arguments})
    return str(raised.value).partition("(")[2].partition(")")[0]


def test_an_image_may_be_a_public_parameter(cloud: EmulatedCloud) -> None:
    """EC2 resolves it; the machine shows the image itself."""
    (instance,) = launch(cloud)
    found = cloud.call("ec2", "describe_instances", InstanceIds=[instance.id])["Reservations"][0]["Instances"][0]
    assert found["ImageId"].startswith("ami-")
    assert cloud.call("ssm", "get_parameter", Name=IMAGE.removeprefix("resolve:ssm:"))["Parameter"]["Value"].startswith(
        "ami"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"ImageId": "resolve:ssm:/aws/service/no/such"}, "SsmInvalidParameter"),
        ({"ImageId": "ami-00000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "g9.huge"}, "InvalidParameterValue"),
        ({"KeyName": "nobodys"}, "InvalidKeyPair.NotFound"),
        ({"SecurityGroupIds": ["sg-0000"]}, "InvalidGroup.NotFound"),
        ({"IamInstanceProfile": {"Name": "absent"}}, "InvalidParameterValue"),
    ],
)
def test_a_launch_with_something_that_is_not_there_is_refused(
    cloud: EmulatedCloud, arguments: dict[str, object], code: str
) -> None:
    """With the code of EC2."""
    assert refusal(cloud, **arguments) == code


def test_a_dry_run_starts_nothing_and_takes_no_failure(cloud: EmulatedCloud) -> None:
    """EC2 looks at the request alone."""
    before = [each.id for each in cloud.instances()]
    cloud.fail_launches("InsufficientInstanceCapacity", count=1)
    assert refusal(cloud, DryRun=True) == "DryRunOperation"
    assert refusal(cloud) == "InsufficientInstanceCapacity"
    assert [each.id for each in cloud.instances()] == before


def test_a_launch_gets_as_many_machines_as_it_may(cloud: EmulatedCloud) -> None:
    """MaxCount where there is room for it, each with its profile."""
    name = profile(cloud, "several", {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    started = launch(cloud, 3, IamInstanceProfile={"Name": name})
    assert [each.profile for each in started] == [name] * 3


def test_a_spot_machine_has_its_request_and_cannot_be_stopped(cloud: EmulatedCloud) -> None:
    """So launchers terminate it where they would stop others."""
    (spot,) = launch(cloud, InstanceMarketOptions={"MarketType": "spot"})
    found = cloud.call("ec2", "describe_instances", InstanceIds=[spot.id])["Reservations"][0]["Instances"][0]
    assert found["SpotInstanceRequestId"].startswith("sir-")
    with pytest.raises(ClusterError, match="UnsupportedOperation"):
        cloud.call("ec2", "stop_instances", InstanceIds=[spot.id])


def test_launches_fail_when_they_are_told_to(cloud: EmulatedCloud) -> None:
    """For as many calls, for the market and the type that were named."""
    cloud.fail_launches("InsufficientInstanceCapacity", count=1, market="spot", instance_type="m7i.large")
    launch(cloud)
    assert refusal(cloud, InstanceMarketOptions={"MarketType": "spot"}) == "InsufficientInstanceCapacity"
    launch(cloud, InstanceMarketOptions={"MarketType": "spot"})
    cloud.fail_launches("VcpuLimitExceeded", count=2)
    assert [refusal(cloud), refusal(cloud)] == ["VcpuLimitExceeded"] * 2
    cloud.fail_launches("", count=0)


def test_a_machine_can_die_at_boot(cloud: EmulatedCloud) -> None:
    """The launch succeeds, and soon EC2 says that the machine is terminated and why."""
    make_key(cloud)
    cloud.fail_launches(DIES_AT_BOOT)
    started = cloud.call("ec2", "run_instances", **TYPE, ImageId=IMAGE, KeyName=KEY_NAME)
    instance_id = started["Instances"][0]["InstanceId"]

    def state() -> str:
        return next(f"{each.state} {each.state_reason}" for each in cloud.instances() if each.id == instance_id)

    wait_for(lambda: state() == f"terminated {DIES_AT_BOOT}", "it is dead")


def test_instance_types_are_those_of_the_region(cloud: EmulatedCloud) -> None:
    """Few enough for one page; GPUs are told by EC2."""
    found = cloud.call("ec2", "describe_instance_types")["InstanceTypes"]
    kinds = {each["InstanceType"]: each for each in found}
    assert {"g6.xlarge", "g5.xlarge", "g6e.xlarge", "p4d.24xlarge", "p5.48xlarge", "m7i.large", "m5.large"} <= {*kinds}
    assert kinds["g6.xlarge"]["GpuInfo"]["Gpus"][0]["Count"] == 1
    assert len(kinds) < 120


STRANGER = """
import boto3
from botocore.exceptions import ClientError
CALLS = "ec2.describe_instances sts.get_caller_identity s3.list_buckets ssm.describe_parameters"
for service, operation in [call.split(".") for call in CALLS.split()]:
    try:
        getattr(boto3.client(service, "us-west-2"), operation)()
    except ClientError as error:
        print(error.response["Error"]["Code"])
"""


def test_a_stranger_is_refused(cloud: EmulatedCloud) -> None:
    """Keys that nobody was given, with each service's own code, and no keys at all."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIASTRANGER", "AWS_SECRET_ACCESS_KEY": "x"}
    done = cloud.laptop(["python", "-c", STRANGER], env=keys)
    codes = ["AuthFailure", "InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException"]
    assert done.stdout.split() == codes
    assert "AccessDenied" in cloud.laptop(["curl", "-s", f"{ENDPOINT_URL}/some-bucket"]).stdout


def test_a_role_may_launch_just_what_its_policy_says(cloud: EmulatedCloud) -> None:
    """Tags, the role that is passed on, and the image's parameter need their rights too."""
    rights = [
        {"Effect": "Allow", "Action": ["ec2:RunInstances", "ssm:GetParameters"], "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "ec2:TerminateInstances",
            "Resource": "*",
            "Condition": {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": "mine"}},
        },
    ]
    name = profile(cloud, "launcher", *rights)
    (head,) = launch(cloud, IamInstanceProfile={"Name": name})
    (other,) = launch(cloud)
    tagged = {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]}
    for more, code in [
        ({}, "done"),
        (tagged, "ec2:CreateTags"),
        ({"IamInstanceProfile": {"Name": name}}, "iam:PassRole"),
    ]:
        arguments = {**TYPE, "ImageId": IMAGE, **more}
        program = f"boto3.client('ec2', 'us-west-2').run_instances(**{json.dumps(arguments)}); print('done')"
        assert code in boto(cloud, head, program)
    end = f"boto3.client('ec2', 'us-west-2').terminate_instances(InstanceIds=['{other.id}'])"
    assert "ec2:TerminateInstances" in boto(cloud, head, end)

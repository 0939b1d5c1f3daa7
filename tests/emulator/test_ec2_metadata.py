"""The metadata service: who a machine is, which role it has, and version 2 where it is required."""

import json

import pytest
from launching import boto, launch, profile

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance

ROOT = "http://169.254.169.254/latest"


def get(cloud: EmulatedCloud, instance: Instance, path: str, *options: str) -> tuple[int, str]:
    """Return the status and the body of an item."""
    command = ["curl", "-s", "-m", "5", "-w", "\n%{http_code}", *options, f"{ROOT}/{path}"]
    body, _, status = cloud.on_machine(instance, command).stdout.rpartition("\n")
    return int(status), body


@pytest.fixture(scope="module")
def instance(cloud: EmulatedCloud) -> Instance:
    """A machine without a profile, on which version 1 is still admitted."""
    return launch(cloud)[0]


def test_a_machine_learns_who_it_is(cloud: EmulatedCloud, instance: Instance) -> None:
    """By its address alone."""
    assert get(cloud, instance, "meta-data/instance-id") == (200, instance.id)
    assert get(cloud, instance, "meta-data/public-ipv4") == (200, instance.public_address)
    assert get(cloud, instance, "meta-data/placement/region") == (200, cloud.region)
    assert get(cloud, instance, "meta-data/instance-life-cycle") == (200, "on-demand")


def test_without_a_profile_there_are_no_credentials(cloud: EmulatedCloud, instance: Instance) -> None:
    """The list of roles is not there, and boto3 finds none."""
    assert get(cloud, instance, "meta-data/iam/security-credentials/")[0] == 404
    assert "NoCredentialsError" in boto(cloud, instance, "boto3.client('s3').list_buckets()")


def test_each_machine_has_the_rights_of_its_own_role(cloud: EmulatedCloud) -> None:
    """One may write below a prefix, the other may only read there."""
    cloud.call("s3", "create_bucket", Bucket="shared", CreateBucketConfiguration={"LocationConstraint": cloud.region})
    resource = "arn:aws:s3:::shared/runs/*"
    writer = profile(cloud, "writer", {"Effect": "Allow", "Action": "s3:*Object", "Resource": resource})
    reader = profile(cloud, "reader", {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource})
    (first,) = launch(cloud, IamInstanceProfile={"Name": writer})
    (second,) = launch(cloud, IamInstanceProfile={"Name": reader})
    put = "boto3.client('s3').put_object(Bucket='shared', Key='{}', Body=b'x')['ETag']; print('done')"
    assert boto(cloud, first, put.format("runs/a")) == "done"
    assert "AccessDenied" in boto(cloud, first, put.format("elsewhere"))
    assert "AccessDenied" in boto(cloud, second, put.format("runs/b"))
    assert (
        boto(cloud, second, "print(boto3.client('s3').get_object(Bucket='shared', Key='runs/a')['Body'].read())")
        == "b'x'"
    )
    who = "print(boto3.client('ec2', 'us-west-2').describe_instances())"
    assert "UnauthorizedOperation" in boto(cloud, second, who)
    refused = [call for call in cloud.api_log() if call.error == "UnauthorizedOperation"]
    assert (refused[-1].caller, refused[-1].action) == (f"{second.id} (reader)", "DescribeInstances")
    assert refused[-1].time_s <= cloud.now_s()


def test_version_2_needs_its_token(cloud: EmulatedCloud) -> None:
    """Where HttpTokens is required, a plain request is refused, and a token of another machine as well."""
    required = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    strict, other = launch(cloud, 2, MetadataOptions=required)
    assert get(cloud, strict, "meta-data/instance-id")[0] == 401
    tokens = {}
    for each in (strict, other):
        lifetime = ("-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60")
        status, tokens[each.id] = get(cloud, each, "api/token", *lifetime)
        assert status == 200
    own = ("-H", f"X-aws-ec2-metadata-token: {tokens[strict.id]}")
    assert get(cloud, strict, "meta-data/instance-id", *own) == (200, strict.id)
    assert get(cloud, other, "meta-data/instance-id", *own)[0] == 401
    assert get(cloud, strict, "api/token", "-X", "PUT")[0] == 400


def test_the_hop_limit_keeps_the_token_from_containers(cloud: EmulatedCloud) -> None:
    """With a limit of 1 the answer does not survive being forwarded inside the machine; with 2 it does."""
    inside = (
        "ip netns add box; ip link add v0 type veth peer name v1 netns box; ip addr add 10.9.0.1/24 dev v0; "
        "ip link set v0 up; ip -n box addr add 10.9.0.2/24 dev v1; ip -n box link set v1 up; "
        "ip -n box route add default via 10.9.0.1; echo 1 > /proc/sys/net/ipv4/ip_forward; "
        "nft 'table ip nat { chain c { type nat hook postrouting priority 100; masquerade; }; }'; "
        "nft 'table inet f { chain c { type filter hook forward priority 0; policy accept; }; }'"
    )
    ask = "curl -s -m 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' -o /dev/null -w '%{http_code}'"
    results = []
    for limit in (1, 2):
        (machine,) = launch(cloud, MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": limit})
        prepared = cloud.on_machine(machine, ["sh", "-ec", inside])
        assert prepared.returncode == 0, prepared.stdout
        done = cloud.on_machine(machine, ["sh", "-c", f"ip netns exec box {ask} {ROOT}/api/token"])
        results.append(done.stdout.strip())
    assert results == ["000", "200"]


def test_a_spot_machine_is_told_before_it_is_taken(cloud: EmulatedCloud) -> None:
    """Advice to rebalance, then the time of the end; EC2 says why it is gone."""
    (spot,) = launch(cloud, InstanceMarketOptions={"MarketType": "spot"})
    assert get(cloud, spot, "meta-data/instance-life-cycle") == (200, "spot")
    assert get(cloud, spot, "meta-data/spot/instance-action")[0] == 404
    cloud.preempt(spot, notice_s=5)
    status, action = get(cloud, spot, "meta-data/spot/instance-action")
    assert (status, json.loads(action)["action"]) == (200, "terminate")
    assert get(cloud, spot, "meta-data/events/recommendations/rebalance")[0] == 200
    assert spot.id in cloud.machines()
    wait_for(lambda: spot.id not in cloud.machines(), "the machine is gone", limit_s=30)
    (said,) = [each for each in cloud.instances() if each.id == spot.id]
    assert (said.state, said.state_reason) == ("terminated", "Server.SpotInstanceTermination")

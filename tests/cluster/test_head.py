"""head: what is said where a cluster has no head."""

import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from cluster_projects import IMAGE, REGION
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.cluster.head import NotUpError, find_head

FILE = """
cluster_name: {name}
max_workers: 2
provider: {{type: aws, region: {region}, cache_stopped_nodes: false}}
auth: {{ssh_user: ubuntu}}
head_node_type: head
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{InstanceType: m7i.xlarge}}}}
"""


def start_worker(cluster: str) -> None:
    named = {"ray-cluster-name": cluster, "ray-node-type": "worker"}
    tags: list[Any] = [
        {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in named.items()]}
    ]
    boto3.client("ec2", region_name=REGION).run_instances(
        ImageId=IMAGE, InstanceType="t3.micro", MinCount=1, MaxCount=1, TagSpecifications=tags
    )


def test_workers_that_run_without_a_head_are_counted(s3_server: str, tmp_path: Path) -> None:
    """They cost money, and nobody ends them; where there are none, nothing is said of them."""
    name = f"headless-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "aws.yaml"
    file.write_text(FILE.format(name=name, region=REGION))
    cluster = load_cluster_file(file)
    with pytest.raises(NotUpError) as none:
        find_head(cluster)
    assert "run: ray up" in str(none.value) and "cost" not in str(none.value)
    start_worker(name)
    start_worker(name)
    with pytest.raises(NotUpError, match=r"2 workers of this cluster still run and cost money; .* scaletrain down"):
        find_head(cluster)

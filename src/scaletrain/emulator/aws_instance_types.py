"""The instance types of the emulated EC2: few of those that moto knows, so that asking for all of them is quick."""

from collections.abc import Sequence
from functools import cache

# Ray pages through all instance types at each `ray up`: 14 s for moto's 1,395.
_SIZES = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "48xlarge")
_GENERAL = ("m5", "m6i", "m7i", "c7i", "r7i")
_ACCELERATED = ("g4dn", "g5", "g6", "g6e", "p3", "p4d", "p4de", "p5", "p5en", "p6-b200")
_SMALL = ("t3.medium", "t3.large")


def keep_few(region: str, wanted: Sequence[str]) -> None:
    """Have moto forget all instance types but the usual ones and those that are wanted."""
    from moto.ec2.models.instance_types import InstanceTypeBackend

    there = offered(region)
    usual = {f"{family}.{size}" for family in _GENERAL for size in _SIZES[:4]} | set(_SMALL)
    kept = []
    for each in InstanceTypeBackend.instance_types:
        name = str(each["InstanceType"])
        if name in there and (name in usual or name in wanted or name.partition(".")[0] in _ACCELERATED):
            kept.append(each)
    InstanceTypeBackend.instance_types = kept


@cache
def offered(region: str) -> frozenset[str]:
    """The names of the instance types that a region has."""
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    return frozenset(str(each["InstanceType"]) for each in INSTANCE_TYPE_OFFERINGS["region"].get(region, []))

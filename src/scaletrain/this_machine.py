"""Which machine this process runs on: its type, market and region, as the cloud's metadata service says."""

from dataclasses import dataclass
from pathlib import Path

from scaletrain.log import get_logger
from scaletrain.machine_types import machine_type
from scaletrain.metadata_service import ADDRESS, EC2, UNANSWERED, Google, recognise
from scaletrain.price_table import Market

_TRIES = 2  # on a busy machine the first answer may be late
_GPUS_OF_ANY_MACHINE = ("T4", "V100")  # that Google attaches to an N1, whose name does not tell

log = get_logger(__name__)


@dataclass(frozen=True)
class Machine:
    """One machine; `identity` tells it from others. The rest is None on a machine that no known cloud rents out."""

    identity: str
    machine_type: str | None = None
    market: Market | None = None
    region: str | None = None

    @property
    def described(self) -> str:
        """The machine as messages call it."""
        if self.machine_type is None:
            return "a machine of no known cloud"
        return f"{self.machine_type} ({self.market}, {self.region})"


def looks_rented() -> bool:
    """Whether the firmware says that this is a machine of EC2 or Google, without asking over the network."""
    try:
        vendor = Path("/sys/class/dmi/id/sys_vendor").read_text().strip()
    except OSError:
        return False
    return vendor in ("Amazon EC2", "Google")


def find_this_machine(*, ask: bool, address: str = ADDRESS) -> Machine:
    """Say which machine this is; with `ask` its cloud is asked, which may take seconds where none answers.

    Without, or where nobody answers, it is a machine of no known cloud. Two containers on one machine are that machine.
    """
    for again in reversed(range(_TRIES if ask else 0)):
        try:
            service = recognise(address)
            if isinstance(service, EC2):
                return _on_ec2(service)
            return _on_google(service) if service is not None else _unknown()
        except UNANSWERED as error:
            log.debug("the metadata service at %s does not say what this machine is: %s", address, error)
            if not again:
                break
    return _unknown()


def _unknown() -> Machine:
    return Machine(Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def _on_ec2(service: EC2) -> Machine:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html: spot, on-demand, scheduled."""
    market: Market = "spot" if service.text("instance-life-cycle") == "spot" else "on-demand"
    return Machine(
        identity=service.text("instance-id"),
        machine_type=service.text("instance-type"),
        market=market,
        region=service.text("placement/region"),
    )


def _on_google(service: Google) -> Machine:
    """https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys: a spot machine is preemptible there."""
    name = service.text("machine-type").rpartition("/")[2]
    zone = service.text("zone").rpartition("/")[2]
    return Machine(
        identity=service.text("id"),
        machine_type=_with_attached_gpus(name),
        market="spot" if service.text("scheduling/preemptible") == "TRUE" else "on-demand",
        region=zone.rpartition("-")[0],
    )


def _with_attached_gpus(name: str, *, folder: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """The name of machine_types.py for a machine whose GPUs its type does not tell; NVIDIA's driver lists them."""
    known = machine_type(name)
    if (known is not None and known.gpus) or not folder.is_dir():
        return name
    models = [(gpu / "information").read_text().partition("\n")[0] for gpu in sorted(folder.iterdir())]
    found = [gpu for model in models for gpu in _GPUS_OF_ANY_MACHINE if gpu in model]
    return f"{name}+{len(found)}x{found[0]}" if found else name

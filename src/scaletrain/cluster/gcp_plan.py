"""What one cluster needs in a Google Cloud project, and how everything is named there."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """What the project should hold for one cluster. The cluster's name is its machines' network tag, too."""

    cluster: str
    project_id: str
    project_number: str
    region: str
    zone: str
    bucket: str
    prefix: str
    ssh_user: str
    ssh_from: tuple[str, ...]
    network: str
    subnet: str
    public_key: Callable[[], str]

    @property
    def bucket_root(self) -> str:
        """The storage root as a URL."""
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def head_account(self) -> str:
        """The address of the head's service account."""
        return account_address(f"{self.cluster}-head", self.project_id)

    @property
    def worker_account(self) -> str:
        """The address of the workers' service account."""
        return account_address(f"{self.cluster}-worker", self.project_id)

    @property
    def head_role(self) -> str:
        """The role of what the head may do without regard to a machine."""
        return f"projects/{self.project_id}/roles/scaletrain_{self.cluster.replace('-', '_')}_head"

    @property
    def machines_role(self) -> str:
        """The role of what the head may do with workers of its own cluster."""
        return f"projects/{self.project_id}/roles/scaletrain_{self.cluster.replace('-', '_')}_workers"


def account_address(account_id: str, project_id: str) -> str:
    """Return the address of a project's service account."""
    return f"{account_id}@{project_id}.iam.gserviceaccount.com"

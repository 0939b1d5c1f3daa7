"""What one cluster needs in an AWS account, and what becomes known only once it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Wanted:
    """What the account should hold for one cluster."""

    cluster: str
    region: str
    bucket: str
    prefix: str
    ssh_from: tuple[str, ...]
    vpc_id: str
    subnet_id: str
    public_key: Callable[[], str]

    @property
    def head_role(self) -> str:
        """The name of the head's role and instance profile; roles are the whole account's, hence the region."""
        return f"{self.cluster}-{self.region}-head"

    @property
    def worker_role(self) -> str:
        """The name of the workers' role and instance profile."""
        return f"{self.cluster}-{self.region}-worker"

    @property
    def bucket_root(self) -> str:
        """The storage root as a URL."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass
class Found:
    """Ids that are known only once a thing exists; steps that come later read them."""

    ids: dict[str, str] = field(default_factory=dict)

"""Waiting until EC2 knows a new instance profile: some ten seconds after IAM has made it, and `ray up` fails before."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from scaletrain.cluster.aws_account import Account, aws_errors, error_code
from scaletrain.cluster.plan import Step
from scaletrain.errors import ClusterError
from scaletrain.log import get_logger

_LIMIT_S = 120
_PAUSE_S = 2

_log = get_logger(__name__)


def waiting_step(account: Account, names: Sequence[str], *, node_config: Mapping[str, Any], subnet_id: str) -> Step:
    """Wait until machines, of which `node_config` is an example, may be started with each of these profiles."""
    launch = {key: node_config[key] for key in ("ImageId", "InstanceType") if key in node_config}

    def wait() -> None:
        deadline = time.monotonic() + _LIMIT_S
        for name in names:
            while not _is_known(account, name, {**launch, "SubnetId": subnet_id}):
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"EC2 does not know the instance profile {name} {_LIMIT_S} s after it was made. Everything "
                        "else is ready: wait some minutes before `ray up`, which fails as long as that is so"
                    )
                time.sleep(_PAUSE_S)

    return Step("until EC2 knows the profiles", "wait", "some ten seconds after they were made", wait)


def _is_known(account: Account, profile: str, launch: Mapping[str, Any]) -> bool:
    """Ask for a machine that is not to be started: AWS looks at the request, and answers that it would have done it."""
    from botocore.exceptions import ClientError

    with aws_errors(f"asking EC2 for the instance profile {profile}"):
        try:
            account.client("ec2").run_instances(
                **launch, IamInstanceProfile={"Name": profile}, MinCount=1, MaxCount=1, DryRun=True
            )
        except ClientError as error:
            code, message = error_code(error), str(error)
            if code == "InvalidParameterValue" and "instance profile" in message.lower():
                return False
            if code != "DryRunOperation":
                _log.warning(
                    "EC2 does not say whether it knows %s: wait a minute before `ray up` (%s)", profile, message
                )
    return True

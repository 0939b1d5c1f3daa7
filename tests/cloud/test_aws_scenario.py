"""The shipped cluster/aws.yaml, from an empty account to nothing left: two spot workers, one lost on the way.

See `journey`; the emulated EC2 enforces roles, security groups and IMDSv2.
"""

import journey
import pytest
from account import Account

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_the_shipped_file_from_an_empty_account_to_nothing_left(account: Account) -> None:
    """Init, up, submit, a spot loss in mid-run, the replacement, exact continuation, idle, down, destroy.

    On the way nothing answers a stranger, or whoever lacks the token, and a job's secret is nowhere to be found.
    """
    reference = account.keep_secret(journey.SECRET)
    journey.bring_up(account)
    with journey.training(account, reference, "train.steps=60") as job:  # enough to lose a machine on the way
        lost = journey.lose_a_spot_machine(account)
        journey.wait_for_replacement(account, lost)
        journey.nobody_gets_in(account, reference)
        assert account.exit_code(job, log="submit.log", limit_s=400) == 0, account.read("submit.log")[-6000:]
    journey.the_secret_is_nowhere(account, reference)
    told = account.read("submit.log")
    assert "with other workers" in told and "a worker was lost" not in told
    assert "is at step 60 of 60" in told

    proved = journey.verdict(account)
    assert (proved["step"], proved["attempt"], proved["world_size"], proved["zero_stage"]) == (60, 2, 2, 2)
    # The state was saved within the notice: not one step was done again.
    assert (proved["problems"], proved["done_again"]) == ([], 0)

    journey.take_down(account)
    call = account.cloud.call
    assert call("s3", "list_buckets")["Buckets"] == []
    groups = call("ec2", "describe_security_groups")["SecurityGroups"]
    assert [each["GroupName"] for each in groups if each["GroupName"] != "default"] == []

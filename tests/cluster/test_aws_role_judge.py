"""aws_role_judge: IAM's own simulator is asked, with all that rights depend on; else the policies are read."""

import json

import boto3
from botocore.stub import Stubber

from cluster_projects import REGION
from scaletrain.cluster.aws_account import Account, connect
from scaletrain.cluster.aws_role_judge import RoleJudge

BUCKET = "arn:aws:s3:::b"


def test_the_simulator_is_asked_with_the_context() -> None:
    """In the form that AWS documents: conditions are judged too."""
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=REGION)
    account = Account(session, REGION, "123456789012", "me", "aws")
    asked = {
        "PolicySourceArn": "arn:aws:iam::123456789012:role/worker",
        "ActionNames": ["s3:ListBucket"],
        "ResourceArns": [BUCKET],
        "ContextEntries": [
            {"ContextKeyName": "s3:prefix", "ContextKeyValues": ["root/"], "ContextKeyType": "string"},
        ],
    }
    decisions = [{"EvalActionName": "s3:ListBucket", "EvalDecision": "explicitDeny"}]
    with Stubber(account.client("iam")) as stub:
        stub.add_response("simulate_principal_policy", {"EvaluationResults": decisions}, asked)
        denied = RoleJudge(account).denied("worker", ["s3:ListBucket"], BUCKET, {"s3:prefix": "root/"})
    assert denied == {"s3:ListBucket": "forbidden"}


def test_policies_are_read_where_there_is_no_simulator(s3_server: str) -> None:
    """Attached ones and a deny count as well."""
    iam = boto3.client("iam", region_name=REGION)
    iam.create_role(RoleName="judged", AssumeRolePolicyDocument="{}")

    def policy(effect: str, action: str) -> str:
        statement = {"Effect": effect, "Action": action, "Resource": f"{BUCKET}/*"}
        return json.dumps({"Version": "2012-10-17", "Statement": statement})

    arn = iam.create_policy(PolicyName="judged", PolicyDocument=policy("Allow", "s3:*"))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="judged", PolicyArn=arn)
    iam.put_role_policy(RoleName="judged", PolicyName="no", PolicyDocument=policy("Deny", "s3:DeleteObject"))
    judge = RoleJudge(connect(REGION))
    found = judge.denied("judged", ["s3:GetObject", "s3:DeleteObject", "ec2:RunInstances"], f"{BUCKET}/x")
    assert found == {"s3:DeleteObject": "not allowed", "ec2:RunInstances": "not allowed"}
    assert not judge.simulates

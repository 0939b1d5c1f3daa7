"""aws_request: which call an HTTP request is, and how a refusal reads to its client."""

from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import pytest

from scaletrain.emulator.aws_request import Refusal, parse_request


def request(service: str, method: str, path: str, body: bytes = b"", **more: str) -> dict[str, Any]:
    signature = f"AWS4-HMAC-SHA256 Credential=AKIAX/20261124/us-west-2/{service}/aws4_request, SignedHeaders=host"
    url, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": url,
        "QUERY_STRING": query,
        "HTTP_AUTHORIZATION": signature,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        **more,
    }


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "/", "ListAllMyBuckets"),
        ("GET", "/b?list-type=2&prefix=x", "ListBucket"),
        ("HEAD", "/b", "ListBucket"),
        ("GET", "/b?location", "GetBucketLocation"),
        ("PUT", "/b", "CreateBucket"),
        ("PUT", "/b?versioning", "PutBucketVersioning"),
        ("GET", "/b?uploads", "ListBucketMultipartUploads"),
        ("HEAD", "/b/k/l", "GetObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", "PutObject"),
        ("POST", "/b/k?uploads", "PutObject"),
        ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload"),
        ("DELETE", "/b/k", "DeleteObject"),
    ],
)
def test_s3_requests_have_the_action_that_iam_calls_them(method: str, path: str, action: str) -> None:
    """From the method, the path and the sub-resource."""
    found = parse_request(request("s3", method, path))
    assert (found.service, found.action, found.access_key) == ("s3", action, "AKIAX")


def test_a_deletion_of_many_names_each_key() -> None:
    """The right is needed on every one of them."""
    body = b"<Delete><Object><Key>a/1</Key></Object><Object><Key>a/2</Key></Object></Delete>"
    found = parse_request(request("s3", "POST", "/b?delete", body))
    assert (found.action, found.keys) == ("DeleteObject", ("a/1", "a/2"))


def test_a_form_is_read_and_put_back() -> None:
    """moto reads it after us."""
    body = urlencode({"Action": "RunInstances", "SecurityGroupId.2": "b", "SecurityGroupId.1": "a"}).encode()
    environ = request("ec2", "POST", "/", body)
    found = parse_request(environ)
    assert found.action == "RunInstances"
    assert found.numbered("SecurityGroupId") == ["a", "b"]
    assert environ["wsgi.input"].read() == body


def test_tags_of_a_form() -> None:
    """Keys and values belong together by their number."""
    form = {"Action": "CreateTags", "Tag.1.Key": "a", "Tag.1.Value": "1", "Tag.2.Key": "b"}
    assert parse_request(request("ec2", "POST", "/", urlencode(form).encode())).tags("Tag") == {"a": "1", "b": ""}


@pytest.mark.parametrize("service", ["s3", "ec2", "iam", "ssm"])
def test_refusals_name_their_code(service: str) -> None:
    """In the form that each service's clients parse."""
    _, body = Refusal("AccessDenied", "no <right>").render(service)
    assert b"AccessDenied" in body
    assert b"<right>" not in body or service == "ssm"

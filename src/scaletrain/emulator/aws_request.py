"""What an HTTP request asks of AWS: the service, the action, who signs it, and how a refusal must look."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode
from xml.sax.saxutils import escape

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]*)/([^/]+)/aws4_request")
# The action that a sub-resource in the query stands for; {} is Get, Put or Delete.
_BUCKET_PARTS = {
    "location": "{}BucketLocation",
    "versioning": "{}BucketVersioning",
    "lifecycle": "{}LifecycleConfiguration",
    "encryption": "{}EncryptionConfiguration",
    "publicAccessBlock": "{}BucketPublicAccessBlock",
    "policy": "{}BucketPolicy",
    "tagging": "{}BucketTagging",
    "acl": "{}BucketAcl",
}


@dataclass(frozen=True)
class AwsRequest:
    """One API call; `parameters` are the form's fields or the JSON body's, bucket and key those of S3."""

    service: str
    action: str
    region: str = ""
    access_key: str = ""
    session_token: str = ""
    address: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    bucket: str = ""
    keys: tuple[str, ...] = ()

    def numbered(self, name: str) -> list[str]:
        """Return the values of a list in a form: `InstanceId.1`, `InstanceId.2`, ..."""
        pattern = re.compile(rf"{re.escape(name)}\.(\d+)")
        found = [(int(match[1]), value) for key, value in self.parameters.items() if (match := pattern.fullmatch(key))]
        return [value for _, value in sorted(found)]

    def tags(self, prefix: str) -> dict[str, str]:
        """Return the tags below a prefix of a form: `Tag` for `Tag.1.Key`, `Tag.1.Value`."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.Key")
        return {
            value: self.parameters.get(f"{prefix}.{match[1]}.Value", "")
            for key, value in self.parameters.items()
            if (match := pattern.fullmatch(key))
        }


class Refusal(Exception):
    """An error of AWS: its code, its message and its HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status

    def render(self, service: str) -> tuple[str, bytes]:
        """Return the content type and the body that the service's clients understand."""
        code, message = escape(self.code), escape(self.message)
        if service == "s3":
            return "application/xml", f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        if service == "ec2":
            error = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            return "text/xml", f"<Response>{error}<RequestID>emulated</RequestID></Response>".encode()
        if service in ("iam", "sts"):
            error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            return "text/xml", f"<ErrorResponse>{error}<RequestId>emulated</RequestId></ErrorResponse>".encode()
        return "application/x-amz-json-1.1", json.dumps({"__type": self.code, "message": self.message}).encode()


def parse_request(environ: dict[str, Any]) -> AwsRequest:
    """Read a WSGI request; the body of anything but S3's uploads is read and put back."""
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    credential = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    if credential is None and "X-Amz-Credential" in query:
        credential = _CREDENTIAL.search(f"Credential={unquote(query['X-Amz-Credential'])}")
    access_key, region, service = credential.groups() if credential else ("", "", "s3")
    request = AwsRequest(
        service=service,
        action="",
        region=region,
        access_key=access_key,
        session_token=environ.get("HTTP_X_AMZ_SECURITY_TOKEN") or query.get("X-Amz-Security-Token", ""),
        address=environ.get("REMOTE_ADDR", ""),
    )
    if service == "s3":
        return _s3_request(request, environ, query)
    body = _read_body(environ)
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return replace(request, action=target.rpartition(".")[2], parameters=json.loads(body or b"{}"))
    form = {**query, **dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))}
    action = form.get("Action") or f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"
    return replace(request, action=action, parameters=form)


def replace_form(environ: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    """Put other form fields into a request before it goes on."""
    body = urlencode(parameters).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(body), str(len(body))


def _read_body(environ: dict[str, Any]) -> bytes:
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = BytesIO(body)
    return body


def _s3_request(request: AwsRequest, environ: dict[str, Any], query: Mapping[str, str]) -> AwsRequest:
    method = environ["REQUEST_METHOD"]
    bucket, _, key = environ.get("PATH_INFO", "/").removeprefix("/").partition("/")
    found = replace(request, bucket=bucket, keys=(key,) if key else (), parameters=query)
    if not bucket:
        return replace(found, action="ListAllMyBuckets")
    if key:
        return replace(found, action=_object_action(method, query))
    if method == "POST" and "delete" in query:
        names = re.findall(rb"<Key>([^<]*)</Key>", _read_body(environ))
        return replace(found, action="DeleteObject", keys=tuple(name.decode() for name in names))
    return replace(found, action=_bucket_action(method, query))


def _object_action(method: str, query: Iterable[str]) -> str:
    if method in ("GET", "HEAD"):
        return "ListMultipartUploadParts" if "uploadId" in query else "GetObject"
    if method == "DELETE":
        return "AbortMultipartUpload" if "uploadId" in query else "DeleteObject"
    return "PutObject"


def _bucket_action(method: str, query: Iterable[str]) -> str:
    verb = {"GET": "Get", "PUT": "Put", "DELETE": "Put"}.get(method, "Get")
    for part, name in _BUCKET_PARTS.items():
        if part in query:
            return name.format(verb)
    if method in ("PUT", "DELETE"):
        return "CreateBucket" if method == "PUT" else "DeleteBucket"
    if "uploads" in query:
        return "ListBucketMultipartUploads"
    return "ListBucketVersions" if "versions" in query else "ListBucket"

"""Signed requests to S3 past s3fs's event loop, with the credentials, the endpoint and the region that s3fs found.

The signature is botocore's own (version 4); what it does not cover is the body, which TLS and a checksum protect.
"""

import base64
import re
import threading
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from scaletrain.storage import http as plain_http
from scaletrain.storage.errors import OTHER_REGION, service_code
from scaletrain.storage.http import Answer

_REDIRECTED = {301, 307}
_UNDERSTOOD = {"endpoint_url", "profile", "key", "secret", "token", "anon"}


class S3Http:
    """Sends plain requests, as far as it would do just what s3fs does."""

    def __init__(self, file_system: Any, options: Mapping[str, Any]) -> None:
        self._file_system = file_system
        self._understood = set(options) <= _UNDERSTOOD
        self._lock = threading.Lock()
        self._endpoint_url = ""
        self._region = ""
        self._direct = False
        self._checksums = True
        self._ca_certs: str | None = None
        self._elsewhere: set[str] = set()

    def send(
        self,
        method: str,
        bucket: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer | None:
        """Send one request, with a CRC-32 of its body as botocore sends it; raises what s3fs would raise.

        None where s3fs has to be asked: options that are not understood here, access points, directory buckets,
        buckets of another region, names that HTTP would shorten, and proxies.
        """
        if not self._can(bucket, key):
            return None
        url = f"{self._endpoint_url}/{bucket}/{quote(key, safe='/~')}"
        if query:
            url += f"?{urlencode(query, quote_via=quote)}"
        all_headers = dict(headers or {})
        if body is not None and self._checksums:
            all_headers["x-amz-checksum-crc32"] = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
        signed = self._signed(method, url, all_headers)
        answer = plain_http.send(method, url, headers=signed, body=body, ca_certs=self._ca_certs)
        if answer.status in (200, 204, 206):
            return answer
        error = _error_of(answer, method)
        if answer.status in _REDIRECTED or service_code(error) in OTHER_REGION:
            self._elsewhere.add(bucket)
            return None
        raise error

    def _can(self, bucket: str, key: str) -> bool:
        if not self._understood or bucket in self._elsewhere or {".", ".."} & set(key.split("/")):
            return False
        if not key or re.fullmatch(r"[a-z0-9][a-z0-9.-]+", bucket) is None or bucket.endswith("--x-s3"):
            return False
        with self._lock:
            if not self._endpoint_url:
                self._connect()
        return self._direct

    def _connect(self) -> None:
        client = self._file_system.s3
        self._region = client.meta.region_name or "us-east-1"
        self._ca_certs = self._file_system.session.get_config_variable("ca_bundle")
        self._checksums = client.meta.config.request_checksum_calculation != "when_required"
        self._direct = plain_http.is_direct(client.meta.endpoint_url)
        self._endpoint_url = client.meta.endpoint_url.rstrip("/")

    def _signed(self, method: str, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers with a signature of version 4, which leaves the body to its checksum and to TLS."""
        if self._file_system.anon:
            return dict(headers)
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.config import Config
        from botocore.exceptions import NoCredentialsError

        credentials = self._credentials()
        if credentials is None:
            raise NoCredentialsError
        request = AWSRequest(method=method, url=url, headers=dict(headers))
        request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
        S3SigV4Auth(credentials, "s3", self._region).add_auth(request)
        return dict(request.headers.items())

    def _credentials(self) -> Any:
        from botocore.credentials import ReadOnlyCredentials
        from fsspec.asyn import sync

        file_system = self._file_system
        if file_system.key:
            return ReadOnlyCredentials(file_system.key, file_system.secret, file_system.token)

        async def frozen() -> Any:
            credentials = await file_system.session.get_credentials()
            return None if credentials is None else await credentials.get_frozen_credentials()

        return sync(file_system.loop, frozen)


def _error_of(answer: Answer, method: str) -> BaseException:
    """Make the exception that s3fs would raise of an answer."""
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    fields = dict(re.findall(r"<(Code|Message|Region|Condition)>([^<]*)<", answer.data.decode("utf-8", "replace")))
    fields.setdefault("Code", str(answer.status))
    metadata = {"HTTPStatusCode": answer.status, "HTTPHeaders": dict(answer.headers)}
    error: BaseException = translate_boto_error(ClientError({"Error": fields, "ResponseMetadata": metadata}, method))
    return error

"""The requests of Google Cloud Storage, through google-cloud-storage and the session it signs requests with.

Ranges and uploads in parts go to the XML API by that session: the library's own ways to them do not tell how long the
object is, and read their parts from files alone. The parts of an upload go up side by side, as to S3.
"""

import base64
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from scaletrain.errors import ConfigError
from scaletrain.storage.client import (
    ABSENT,
    CONNECT_TIMEOUT_S,
    MARK,
    MAX_CONNECTIONS,
    MIB,
    READ_TIMEOUT_S,
    Details,
    Page,
    Part,
    Piece,
    Upload,
    piece_of,
)
from scaletrain.storage.errors import BadNameError, BucketMissingError, ReplacedError, is_transient
from scaletrain.storage.parallel import in_parallel

OPTIONS = frozenset({"endpoint_url", "token"})  # by their names in gcsfs

_SCOPES = ["https://www.googleapis.com/auth/devstorage.read_write"]
_CONTENT_TYPE = "application/octet-stream"
_LISTED = "nextPageToken,prefixes,items(name,size,generation)"
_ONCE: dict[str, Any] = {"retry": None, "timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)}


def connect(options: Mapping[str, Any]) -> "GcsClient":
    """Make a client that sends each request once, with the credentials that Google's libraries find, or with none."""
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud.storage import Client
    from requests.adapters import HTTPAdapter

    # The library would ask for details of each bucket, which traces alone are for and not everybody may.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    credentials = _credentials(options.get("token"))
    session = AuthorizedSession(credentials)
    session.mount("https://", HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    session.mount("http://", HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
    endpoint = {"api_endpoint": options["endpoint_url"]} if "endpoint_url" in options else None
    # The session that the client would make keeps ten connections, fewer than there are threads.
    return GcsClient(Client(project=None, credentials=credentials, client_options=endpoint, _http=session), session)


def _credentials(token: str | None) -> Any:
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    if token not in (None, "anon"):
        advice = "without it Google's own are found; the file of a key is named in GOOGLE_APPLICATION_CREDENTIALS"
        raise ConfigError(f"storage.options.token: may only be anon, for no credentials at all; {advice}")
    if token == "anon" or (token is None and "STORAGE_EMULATOR_HOST" in os.environ):
        return AnonymousCredentials()
    return google.auth.default(scopes=_SCOPES)[0]


@dataclass(frozen=True)
class GcsClient:
    """What google-cloud-storage is asked; see `Client`."""

    gcs: Any
    session: Any
    largest_put_bytes: int = 8 * MIB  # the library sends more than that as a resumable upload

    def head(self, name: str) -> Details | None:
        """objects.get."""
        found = self._bucket(name).get_blob(_key_of(name), **_ONCE) if "/" in name else None
        if found is None:
            return None
        mark = (found.metadata or {}).get(MARK, "")
        return Details(name, int(found.size), str(found.generation), mark, checksum=found.crc32c or "")

    def page(self, folder: str, *, deep: bool, limit: int, after: str | None) -> Page:
        """objects.list."""
        bucket, _, key = folder.partition("/")
        options = {"prefix": f"{key}/" if key else None, "delimiter": None if deep else "/", "page_token": after}
        listing = self._bucket(folder).list_blobs(page_size=limit, fields=_LISTED, **options, **_ONCE)
        with _missing(BucketMissingError(bucket)):
            found = next(listing.pages)
        objects = tuple(Details(f"{bucket}/{each.name}", int(each.size), str(each.generation)) for each in found)
        folders = tuple(f"{bucket}/{prefix}" for prefix in sorted(listing.prefixes))
        return Page(objects, folders, listing.next_page_token or None)

    def get(self, name: str, start: int, stop: int, *, version: str | None) -> Piece:
        """GET of an object with a Range, of one generation where a version is given."""
        missing = ReplacedError(name) if version else FileNotFoundError(errno.ENOENT, "no such object", name)
        query = {"generation": version} if version else {}
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with _missing(missing), self._ask("GET", name, query=query, headers=headers) as answer:
            if answer.status_code == 416:  # begins at the end of the object, or behind it
                return Piece(b"", 0, "")
            data = answer.raw.read(decode_content=False)  # as it is stored, compressed or not
            return piece_of(data, answer.headers.get("Content-Range"), answer.headers.get("X-Goog-Generation", ""))

    def put(self, name: str, data: bytes, *, mark: str, over: str | None) -> None:
        """objects.insert, with ifGenerationMatch (0 for no object) where it must not replace another."""
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket(name).blob(_key_of(name))
        if mark:
            blob.metadata = {MARK: mark}
        condition = {} if over is None else {"if_generation_match": 0 if over == ABSENT else int(over)}
        try:
            with _missing(BucketMissingError(name)):
                blob.upload_from_string(data, content_type=_CONTENT_TYPE, **condition, **_ONCE)
        except PreconditionFailed as error:
            raise FileExistsError(errno.EEXIST, "there is another object", name) from error

    def delete(self, names: Sequence[str]) -> None:
        """objects.delete, one request an object."""

        def delete(name: str) -> None:
            with suppress(FileNotFoundError), _missing(FileNotFoundError(name)):
                self._bucket(name).delete_blob(_key_of(name), **_ONCE)

        in_parallel(delete, names, max_workers=16)

    def begin(self, name: str, *, mark: str) -> Upload:
        """POST ?uploads."""
        headers = {f"x-goog-meta-{MARK}": mark, "Content-Type": _CONTENT_TYPE}
        with (
            _missing(BucketMissingError(name)),
            self._ask("POST", name, query={"uploads": ""}, headers=headers) as answer,
        ):
            [found] = re.findall("<UploadId>(.*)</UploadId>", answer.text)
        return Upload(name, found, mark)

    def put_part(self, upload: Upload, part: Part) -> str:
        """PUT of a part; the receipt is its ETag, and the checksum is compared."""
        import google_crc32c
        from google.cloud.storage.exceptions import DataCorruption

        checksum = base64.b64encode(google_crc32c.Checksum(part.data).digest()).decode()
        query = {"partNumber": str(part.number), "uploadId": upload.id}
        with self._ask("PUT", upload.name, query=query, data=part.data) as answer:
            if f"crc32c={checksum}" not in answer.headers.get("X-Goog-Hash", ""):
                raise DataCorruption(answer, f"part {part.number} has another checksum than was sent")
            return str(answer.headers["ETag"])

    def finish(self, upload: Upload, *, receipts: Sequence[str]) -> None:
        """POST of the parts' receipts."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{receipt}</ETag></Part>"
            for number, receipt in enumerate(receipts, start=1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        missing = FileNotFoundError(errno.ENOENT, "no such upload", upload.name)
        try:
            with _missing(missing), self._ask("POST", upload.name, query={"uploadId": upload.id}, data=body):
                return
        except Exception as error:  # raised again, unless an earlier request has gone through
            if error is not missing and not is_transient(error):
                raise
            found = self.head(upload.name)
            if found is None or found.mark != upload.mark:
                raise

    def abort(self, upload: Upload) -> None:
        """DELETE of an upload."""
        with suppress(FileNotFoundError), _missing(FileNotFoundError(upload.name)):
            self._ask("DELETE", upload.name, query={"uploadId": upload.id}).close()

    def _bucket(self, name: str) -> Any:
        bucket = name.partition("/")[0]
        if re.fullmatch(r"[a-z0-9][a-z0-9._-]+[a-z0-9]", bucket) is None:
            raise BadNameError(name)
        return self.gcs.bucket(bucket)

    def _ask(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Any:
        """Send a request about an object to the XML API; the bytes of an object are yet to be read from the answer."""
        from google.api_core.exceptions import from_http_response

        answer = self.session.request(
            method,
            f"{self.gcs.api_endpoint}/{self._bucket(name).name}/{quote(_key_of(name), safe='~')}",
            params=dict(query),
            headers=dict(headers or {}),
            data=data,
            timeout=_ONCE["timeout"],
            stream=method == "GET",
        )
        if answer.status_code >= 400 and answer.status_code != 416:
            with answer:
                raise from_http_response(answer)
        return answer


def _key_of(name: str) -> str:
    key = name.partition("/")[2]
    if not key:
        raise BadNameError(name)
    return key


@contextmanager
def _missing(instead: Exception) -> Iterator[None]:
    """Raise an error of ours where the store says that there is no such thing."""
    from google.api_core.exceptions import NotFound

    try:
        yield
    except NotFound as error:
        raise instead from error

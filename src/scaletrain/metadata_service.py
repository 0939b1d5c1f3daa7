"""The clouds' metadata services, which tell a machine about itself: EC2's and Google's, past any proxy.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

import http.client
import time
from dataclasses import dataclass

ADDRESS = "169.254.169.254"  # both clouds answer here; Google's name for it would cost a look-up
_TIMEOUT_S = 2.0  # of one request
_TOKEN_LIFETIME_S = 21600  # the longest that EC2 gives

# What a metadata service that fails or talks nonsense for a moment raises.
UNANSWERED = (OSError, http.client.HTTPException, ValueError, KeyError)


@dataclass(frozen=True)
class Answer:
    """What the metadata service answered, by its own clock at `date`, to what was asked at `asked_at_s` of ours."""

    status: int
    text: str
    asked_at_s: float
    date: str | None
    is_google: bool


class NoTokenError(http.client.HTTPException):
    """EC2's metadata service wants a token of version 2, and gives none."""


class EC2:
    """EC2's metadata service; without a token where it wants none (version 1)."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._token = token

    def get(self, item: str) -> Answer:
        """Ask for an item below latest/meta-data; raises UNANSWERED."""
        path = f"/latest/meta-data/{item}"
        answer = _ask(self._address, path, _token_header(self._token))
        if answer.status != 401:
            return answer
        self._token = _new_token(self._address)  # it has expired
        return _ask(self._address, path, _token_header(self._token))

    def text(self, item: str) -> str:
        """What an item says, empty where it is not there; raises UNANSWERED."""
        answer = self.get(item)
        return answer.text.strip() if answer.status == 200 else ""


class Google:
    """Google's metadata server."""

    def __init__(self, address: str) -> None:
        self._address = address

    def text(self, item: str) -> str:
        """What an item below instance says, empty where it is not there; raises UNANSWERED."""
        answer = _ask(self._address, f"/computeMetadata/v1/instance/{item}", {"Metadata-Flavor": "Google"})
        return answer.text.strip() if answer.status == 200 else ""


def recognise(address: str) -> EC2 | Google | None:
    """Find out whose metadata service this is; None where it is neither's. Raises OSError, HTTPException."""
    if _ask(address, "/", {"Metadata-Flavor": "Google"}).is_google:
        return Google(address)
    try:
        token = _new_token(address)
    except TimeoutError:  # the answer to this request alone dies on the way into a container (HttpPutResponseHopLimit)
        token = ""
    status = _ask(address, "/latest/meta-data/instance-id", _token_header(token)).status
    if status == 401:
        raise NoTokenError(
            "its metadata service gives this process no token; give the container the machine's own network "
            "(docker run --network host)"
        )
    return EC2(address, token) if status == 200 else None


def _new_token(address: str) -> str:
    """Return a token of version 2, empty where none is to be had."""
    wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFETIME_S)}
    answer = _ask(address, "/latest/api/token", wanted, method="PUT")
    return answer.text if answer.status == 200 else ""


def _token_header(token: str) -> dict[str, str]:
    return {"X-aws-ec2-metadata-token": token} if token else {}


def _ask(address: str, path: str, headers: dict[str, str], *, method: str = "GET") -> Answer:
    """Send one request, past any proxy; raises OSError or HTTPException where there is no answer, 5xx and 429 too."""
    asked_at_s = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    if response.status >= 500 or response.status == 429:
        raise http.client.HTTPException(f"{method} {path}: {response.status} {response.reason}")
    is_google = response.getheader("Metadata-Flavor") == "Google"
    return Answer(response.status, text, asked_at_s, response.getheader("Date"), is_google)

"""The instance metadata service: it knows a machine by its address, and asks for version 2's token where EC2 would.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

import http.server
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scaletrain.emulator.aws_account import ACCOUNT_ID, Account, user_data_of
from scaletrain.emulator.cloud_process import METADATA_ADDRESS


@dataclass(frozen=True)
class Notice:
    """A spot machine's warning: when EC2 takes it; None where it is only more likely than before."""

    announced_at: float
    ends_at: float | None = None


@dataclass(frozen=True)
class Subject:
    """The machine that asks: moto's instance, and the notice of its end if there is one."""

    instance: Any
    notice: Notice | None = None


@dataclass(frozen=True)
class _Token:
    instance_id: str
    valid_until: float


class MetadataService:
    """Serves until the process ends; `find` returns the machine at an address, or None."""

    def __init__(self, account: Account, find: Callable[[str], Subject | None]) -> None:
        self._account = account
        self._find = find
        self._tokens: dict[str, _Token] = {}

    def start(self) -> None:
        """Answer on the well-known address, in threads of its own."""
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """No log: agents on the machines poll."""

            def do_PUT(self) -> None:
                self._answer(*service.new_token(self.client_address[0], self.path, self._header), to_put=True)

            def do_GET(self) -> None:
                self._answer(*service.read(self.client_address[0], self.path, self._header), to_put=False)

            def _header(self, name: str) -> str:
                return str(self.headers.get(name, ""))

            def _answer(self, status: int, text: str, *, to_put: bool) -> None:
                body = text.encode()
                subject = service._find(self.client_address[0])
                if to_put and subject is not None:
                    hops = subject.instance.metadata_options.http_put_response_hop_limit
                    self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = http.server.ThreadingHTTPServer((METADATA_ADDRESS, 80), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True, name="metadata").start()

    def new_token(self, address: str, path: str, header: Callable[[str], str]) -> tuple[int, str]:
        """Hand out a token of version 2 for as long as is asked."""
        subject = self._find(address)
        lifetime = header("X-aws-ec2-metadata-token-ttl-seconds")
        if subject is None or path != "/latest/api/token":
            return 404, ""
        if not lifetime.isdigit() or not 1 <= int(lifetime) <= 21600 or header("X-Forwarded-For"):
            return (403, "") if header("X-Forwarded-For") else (400, "")
        token = secrets.token_urlsafe(40)
        self._tokens[token] = _Token(subject.instance.id, time.time() + int(lifetime))
        return 200, token

    def read(self, address: str, path: str, header: Callable[[str], str]) -> tuple[int, str]:
        """Return the status and text of one item."""
        subject = self._find(address)
        if subject is None:
            return 404, ""
        options = subject.instance.metadata_options
        if options.http_endpoint != "enabled":
            return 403, ""
        given = header("X-aws-ec2-metadata-token")
        token = self._tokens.get(given)
        valid = token and token.instance_id == subject.instance.id and token.valid_until > time.time()
        if (given or options.http_tokens == "required") and not valid:
            return 401, ""
        text = self._item(subject, path.rstrip("/").removeprefix("/latest/"))
        return (404, "") if text is None else (200, text)

    def _item(self, subject: Subject, path: str) -> str | None:
        if path.startswith("meta-data/iam/"):
            return self._role(subject.instance, path.removeprefix("meta-data/iam/"))
        instance = subject.instance
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        if path.startswith("meta-data/tags/instance"):
            if instance.metadata_options.instance_metadata_tags != "enabled":
                return None
            name = path.removeprefix("meta-data/tags/instance").strip("/")
            return tags.get(name) if name else "\n".join(tags)
        plain: dict[str, str | None] = {
            "meta-data/instance-id": instance.id,
            "meta-data/instance-type": instance.instance_type,
            "meta-data/ami-id": instance.image_id,
            "meta-data/local-ipv4": instance.private_ip,
            "meta-data/public-ipv4": instance.public_ip,
            "meta-data/local-hostname": instance.private_dns_name,
            "meta-data/hostname": instance.private_dns_name,
            "meta-data/placement/region": self._account.region,
            "meta-data/placement/availability-zone": instance.availability_zone,
            "meta-data/instance-life-cycle": instance.lifecycle or "on-demand",
            "meta-data/security-groups": "\n".join(group.name for group in instance.security_groups),
            "meta-data/services/domain": "amazonaws.com",
            "user-data": user_data_of(instance).decode(errors="replace") or None,
            "dynamic/instance-identity/document": self._identity(instance),
            **_notices(subject.notice),
        }
        return plain.get(path)

    def _role(self, instance: Any, path: str) -> str | None:
        """A machine without a profile has nothing here, as on EC2."""
        profile = (instance.iam_instance_profile or {}).get("Arn")
        role = self._account.role_of(profile) if profile else None
        if path == "info":
            return json.dumps({"Code": "Success", "InstanceProfileArn": profile}) if profile else None
        if role is None:
            return None
        if path == "security-credentials":
            return str(role.name)
        if path != f"security-credentials/{role.name}":
            return None
        given = self._account.credentials_for(instance.id, role.name)
        return json.dumps(
            {
                "Code": "Success",
                "LastUpdated": _iso(time.time()),
                "Type": "AWS-HMAC",
                "AccessKeyId": given.access_key,
                "SecretAccessKey": given.secret_key,
                "Token": given.token,
                "Expiration": _iso(given.expires_at),
            }
        )

    def _identity(self, instance: Any) -> str:
        return json.dumps(
            {
                "accountId": ACCOUNT_ID,
                "availabilityZone": instance.availability_zone,
                "imageId": instance.image_id,
                "instanceId": instance.id,
                "instanceType": instance.instance_type,
                "privateIp": instance.private_ip,
                "region": self._account.region,
            }
        )


def _notices(notice: Notice | None) -> dict[str, str | None]:
    if notice is None:
        return {}
    advice = {"meta-data/events/recommendations/rebalance": json.dumps({"noticeTime": _iso(notice.announced_at)})}
    if notice.ends_at is None:
        return {**advice}
    return {
        **advice,
        "meta-data/spot/instance-action": json.dumps({"action": "terminate", "time": _iso(notice.ends_at)}),
        "meta-data/spot/termination-time": _iso(notice.ends_at),
    }


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

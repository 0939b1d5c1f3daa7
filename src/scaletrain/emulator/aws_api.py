"""The gate in front of moto: who calls, may they, must it fail; what moto does not know is answered or put right here.

A WSGI application around moto's own. Every call is recorded with its caller, and a call that may have changed
something wakes whoever keeps the machines.
"""

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from scaletrain.emulator.api_log import ApiLog, LaunchFailures
from scaletrain.emulator.aws_account import CLOUD_ACCESS_KEY, Account
from scaletrain.emulator.aws_authorization import PARAMETER_PREFIX, profile_of
from scaletrain.emulator.aws_request import AwsRequest, Refusal, parse_request, replace_form

DIES_AT_BOOT = "Server.InternalError"
_MESSAGES = {
    "InsufficientInstanceCapacity": (
        "We currently do not have sufficient {type} capacity in the Availability Zone you requested. "
        "Our system will be working on provisioning additional capacity.",
        500,
    ),
    "VcpuLimitExceeded": (
        "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket that "
        "the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to "
        "request an adjustment to this limit.",
        400,
    ),
    "MaxSpotInstanceCountExceeded": ("Max spot instance count exceeded", 400),
}


@dataclass
class Gate:
    """The WSGI application; `changed` is set after each call that may have changed machines or rules."""

    application: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
    account: Account
    changed: threading.Event
    log: ApiLog = field(default_factory=ApiLog)
    failures: LaunchFailures = field(default_factory=LaunchFailures)
    dead_on_arrival: set[str] = field(default_factory=set)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = parse_request(environ)
        name = "?"
        try:
            caller = self.account.identify(request)
            name = caller.name
            if environ.get("PATH_INFO", "").startswith("/moto-api"):
                raise Refusal("AccessDenied", "not a part of AWS", status=403)
            self.account.authorise(request, caller)
            dies = False
            if request.service == "ec2" and request.action == "RunInstances":
                dies = request.parameters.get("DryRun") != "true" and self._take_failure(request)
                replace_form(environ, self._completed_launch(request))
            elif request.service == "ec2" and request.action == "StopInstances":
                self._refuse_to_stop_spot(request)
        except Refusal as refusal:
            content_type, body = refusal.render(request.service)
            self._record(request, name, refusal.status, refusal.code)
            headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
            start_response(f"{refusal.status} Refused", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        return self._forward(environ, start_response, request, name, dies)

    def _forward(
        self, environ: dict[str, Any], start_response: Callable[..., Any], request: AwsRequest, name: str, dies: bool
    ) -> Iterable[bytes]:
        status = 0

        def note_status(line: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            nonlocal status
            status = int(line.split()[0])
            return start_response(line, headers, *rest)

        body: Iterable[bytes] = self.application(environ, note_status)
        error = ""
        if request.service != "s3":
            body = [b"".join(body)]
            found = re.search(rb"<Code>([^<]+)</Code>|\"__type\": ?\"([^\"]+)\"", body[0]) if status >= 400 else None
            error = (found[1] or found[2]).decode() if found else ""
            if request.action == "RunInstances" and status == 200:
                self._complete_instances(request, body[0].decode(), dies)
            # What the account is furnished with beforehand was made long ago.
            if request.action == "CreateInstanceProfile" and status == 200 and request.access_key != CLOUD_ACCESS_KEY:
                self.account.note_new_profile(str(request.parameters.get("InstanceProfileName")))
        self._record(request, name, status, error)
        if not request.action.startswith(("Describe", "Get", "List")) and request.service in ("ec2", "iam"):
            self.changed.set()
        return body

    def _take_failure(self, request: AwsRequest) -> bool:
        """Raise the next failure that was asked for; return True where the machine is to die at boot instead."""
        given = request.parameters
        market = given.get("InstanceMarketOptions.MarketType", "on-demand")
        code = self.failures.take(market=market, instance_type=given.get("InstanceType", ""))
        if code in ("", DIES_AT_BOOT):
            return code == DIES_AT_BOOT
        text, status = _MESSAGES.get(code, ("The launch was refused.", 400))
        raise Refusal(code, text.format(type=given.get("InstanceType")), status=status)

    def _refuse_to_stop_spot(self, request: AwsRequest) -> None:
        ec2 = self.account.backend("ec2")
        spot = [each for each in request.numbered("InstanceId") if ec2.get_instance(each).lifecycle == "spot"]
        if spot:
            raise Refusal("UnsupportedOperation", f"{spot[0]} has a one-time Spot request: it can only be terminated")

    def _completed_launch(self, request: AwsRequest) -> dict[str, Any]:
        """Give moto a launch that it understands: a plain image, the largest count (it takes MinCount), and a place.

        Without a subnet moto would go back to EC2-Classic, and without a group to none at all.
        """
        parameters = dict(request.parameters)
        image = parameters.get("ImageId", "")
        if image.startswith(PARAMETER_PREFIX):
            parameters["ImageId"] = self.account.resolve_parameter(image.removeprefix(PARAMETER_PREFIX))
        key = parameters.get("KeyName")
        if key and key not in self.account.backend("ec2").key_pairs:
            raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
        kind = parameters.get("InstanceType", "m1.small")
        if not self.account.offers(kind):
            raise Refusal("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
        profile = profile_of(request)
        if profile and not self.account.may_launch_with(profile):
            raise Refusal(
                "InvalidParameterValue",
                f"Value ({profile}) for parameter iamInstanceProfile is invalid. Invalid IAM Instance Profile, or one "
                "without a role",
            )
        parameters["MinCount"] = parameters.get("MaxCount", "1")
        if not any(name.startswith("NetworkInterface.") for name in parameters):
            parameters.setdefault("SubnetId", self.account.default_subnet(parameters.get("Placement.AvailabilityZone")))
            if not any(name.startswith("SecurityGroup") for name in parameters):
                parameters["SecurityGroupId.1"] = self.account.default_group()
        return parameters

    def _complete_instances(self, request: AwsRequest, body: str, dies: bool) -> None:
        """Put right what moto leaves out of a launch of several machines, and the request that a spot machine has."""
        ec2 = self.account.backend("ec2")
        profile = profile_of(request)
        for instance_id in re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", body):
            instance = ec2.get_instance(instance_id)
            if profile and instance_id not in ec2.iam_instance_profile_associations:
                ec2.associate_iam_instance_profile(instance_id, iam_instance_profile_name=profile.rpartition("/")[2])
            if instance.lifecycle == "spot":
                instance.spot_instance_request_id = f"sir-{instance_id[-8:]}"
            if dies:
                self.dead_on_arrival.add(instance_id)

    def _record(self, request: AwsRequest, caller: str, status: int, error: str) -> None:
        if request.access_key == CLOUD_ACCESS_KEY:
            return
        self.log.record(
            caller=caller,
            address=request.address,
            service=request.service,
            action=request.action,
            status=status,
            error=error,
        )


def serve(gate: Gate, port: int) -> None:
    """Answer on every address of this network namespace, in threads of its own."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):
        def log_request(self, *_: object) -> None:
            """The gate keeps a log of its own."""

    server = make_server("0.0.0.0", port, gate, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True, name="aws-api").start()

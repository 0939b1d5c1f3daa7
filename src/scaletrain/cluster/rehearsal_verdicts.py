"""Why a rehearsal failed, in the user's words: from what `ray up` and the autoscaler wrote to the line that says it."""

import re
from dataclasses import dataclass

# In order: the first that is found explains. {0} is the whole match, {1}.. its groups.
_REASONS = (
    (
        r"Instance type (\S+) is not available in AWS region: ([\w-]+)",
        "there is no instance type {1} in {2}; choose one that is offered there",
    ),
    (
        r"\(SsmInvalidParameter\).*?parameter (\S+) does not exist in ([\w-]+)",
        "no image parameter {1} is known in {2}; look for its name with: aws ssm get-parameters-by-path",
    ),
    (
        r"\((?:UnauthorizedOperation|AccessDenied\w*)\).*?: (.+?) is not authorized to perform: (\S+)",
        "{1} lacks the right {2}; `scaletrain cluster init aws` gives what a cluster needs",
    ),
    (
        r"\((InsufficientInstanceCapacity|VcpuLimitExceeded|MaxSpotInstanceCountExceeded)\)",
        "EC2 has no machine to give ({1})",
    ),
    (r"An error occurred \(([\w.]+)\) when calling the (\w+) operation[^:]*: (.*)", "AWS refuses {2} ({1}): {3}"),
    (r"Provided region_name '(.*?)' doesn't match", "{1!r} is no region; fill the file: scaletrain cluster init aws"),
    (
        r"HttpError 403 .*?Required '([\w.]+)' permission",
        "the right {1} is missing; `scaletrain cluster init gcp` gives what a cluster needs",
    ),
    (r"(ZONE_RESOURCE_POOL_EXHAUSTED|QUOTA_EXCEEDED)", "Google has no machine to give ({1})"),
    (r"HttpError (\d+) when requesting \S+ returned \"([^\"]*)\"", "Google refuses ({1}): {2}"),
    (r"(?:FileNotFoundError|No such file or directory)[:,]? '?(\S+)'?", "there is no file {1} on this computer"),
    (r"ssh_exchange_identification|Permission denied \(publickey", "no SSH to the machine: wrong user or key"),
)
_SETUP_FAILED = re.compile(r"update-failed|SSH command failed")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# How a line of Ray's own log begins; what is without it was said by the command that ran.
_OWN_LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+\s+[A-Z]+ \w+\.py:\d+ -- ")
_ANNOUNCED = re.compile(r"\(\d+/\d+\) (.+)")
_NOISE = re.compile(
    r"^\s*$|^!!!|^Shared connection to|^Warning: Permanently|^Traceback|^ {2,}|^click\.exceptions"
    r"|^Error: Failed to setup|^Usage stats|^Loaded cached|SSH command failed"
)


@dataclass(frozen=True)
class Verdict:
    """What went wrong, and the line of the log that says it."""

    reason: str
    line: str


def explain(output: str) -> Verdict:
    """Find the cause in what a launcher wrote; where nothing known is found, its last line speaks for itself."""
    lines = [_COLOUR.sub("", line).rstrip() for line in output.splitlines()]
    for pattern, text in _REASONS:
        for line in lines:
            if match := re.search(pattern, line):
                return Verdict(text.format(match[0], *match.groups()), _OWN_LINE.sub("", line).strip())
    said = [line.strip() for line in lines if not _OWN_LINE.match(line) and not _NOISE.search(line)]
    complaints = [
        line for line in said if re.search(r"error|fail|cannot|no such|not found|denied", line, re.IGNORECASE)
    ]
    line = (complaints or said or ["it printed nothing"])[-1]
    if any(_SETUP_FAILED.search(each) for each in lines):
        announced = [match[1] for each in lines if _OWN_LINE.match(each) and (match := _ANNOUNCED.search(each))]
        command = f"`{announced[-1].strip()}`" if announced else "see the log"
        return Verdict(f"a command failed on the machine: {command}", line)
    return Verdict("the launcher gave up", line)

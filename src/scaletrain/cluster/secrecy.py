"""Finding secrets in what is about to be sent to a cluster, where jobs' metadata and logs would show them to many."""

import re
from collections.abc import Iterable, Iterator, Sequence

_NAMES = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|PAT|COOKIE)(_|$)", re.IGNORECASE)
# What a secret looks like; the value itself is never shown.
SECRETS = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"),
    "a Google access token": re.compile(r"\bya29\.[\w-]{20,}"),
    "an API key": re.compile(r"\b(?:sk-[\w-]{20,}|AIza[\w-]{30,}|xox[bp]-[A-Za-z0-9-]{20,})"),
    "a password in a URL": re.compile(r"://[^/@\s:]+:[^/@\s]+@"),
}
_VARIABLE = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_REFERENCE_HINT = (
    "keep it in a parameter store and name it by reference, as --secret HF_TOKEN=ssm:/scaletrain/hf-token, or "
    "HF_TOKEN=gcp:scaletrain-hf-token"
)


def secret_problems(texts: Iterable[str], *, place: str) -> Iterator[str]:
    """Yield a line for each kind of secret in some texts; the secret itself is never part of it."""
    for text in texts:
        for what, pattern in SECRETS.items():
            if pattern.search(text):
                yield f"{place}: has {what} in it, which everybody who sees the job would see; {_REFERENCE_HINT}"


def variable_problems(variables: Sequence[str]) -> Iterator[str]:
    """Yield a line for each NAME=VALUE that is none, or whose name or value is that of a secret."""
    for each in variables:
        name = each.partition("=")[0]
        if not _VARIABLE.match(each):
            yield f"--env {name}: write NAME=VALUE"
        elif _NAMES.search(name):
            yield f"--env {name}: its value would be shown to everybody who sees the job; {_REFERENCE_HINT}"
        else:
            yield from secret_problems([each], place=f"--env {name}")

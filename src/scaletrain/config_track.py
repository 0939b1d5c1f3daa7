"""The section `track`: where metrics go besides the run's own files, and who is told when something happens."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from scaletrain.config_section import Float, Int, Positive, Section, Text

AlertKind = Literal["stalled", "diverged", "over_budget", "finished", "failed"]


class WandbSection(Section):
    """Weights & Biases; the key is read from WANDB_API_KEY or ~/.netrc."""

    project: Text = Field("scaletrain", description="made at the first run, if it is not there")
    entity: Text | None = Field(None, description="the team or user that owns the project; your own by default")
    mode: Literal["online", "offline"] = Field(
        "online", description="offline: files for `wandb sync` in the run's folder, track/wandb/"
    )
    tags: tuple[Text, ...] = Field((), description="of the run, to filter by")


class MlflowSection(Section):
    """MLflow; a server's credentials are read from MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN."""

    uri: Text = Field(description="of the tracking server, http(s)://..., or a database, as sqlite:///mlflow.db")
    experiment: Text = Field("scaletrain", description="made at the first run, if it is not there")

    def rules(self) -> Iterator[tuple[str, str]]:
        if not re.match(r"(https?|sqlite|postgresql|mysql|mssql|databricks)(\+\w+)?://|databricks$", self.uri):
            yield "uri", "is no URI of a tracking server or a database; write http(s)://... or sqlite:///mlflow.db"
        if re.search(r"://[^/@]*:[^/@]*@", self.uri):
            yield "uri", "has a password, which would be stored with the run; use MLFLOW_TRACKING_PASSWORD"


class PrometheusSection(Section):
    """Metrics for Prometheus: on a cluster through Ray's own exporter, or as said here."""

    port: Annotated[Int, Field(ge=1, le=65535)] | None = Field(
        None, description="serve /metrics here; by default through Ray on a cluster, else at 9464"
    )
    host: Text = Field("127.0.0.1", description="the address to serve on; 0.0.0.0: every one of this machine")
    textfile: Text | None = Field(None, description="write a .prom file here, for node_exporter's textfile collector")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.port is not None and self.textfile is not None:
            yield "port", f"got {self.port}, and textfile; keep one of the two"
        if self.textfile is not None and (not self.textfile.endswith(".prom") or "://" in self.textfile):
            yield "textfile", "node_exporter reads only local files that end in .prom; give such a path"


class AlertsSection(Section):
    """Messages to a webhook of Slack, Discord, Mattermost or your own, by the process that runs the command."""

    webhook_variable: str = Field(
        "SCALETRAIN_WEBHOOK", description="the environment variable that holds the URL; never the URL itself"
    )
    on: tuple[AlertKind, ...] = Field(
        ("stalled", "diverged", "over_budget", "finished", "failed"),
        min_length=1,
        description="what to tell; each kind at most once an hour",
    )
    stalled_minutes: Positive = Field(15.0, description="so long without a step, whatever the cause")
    diverged_factor: Annotated[Float, Field(gt=1)] = Field(
        1.5, description="the smoothed loss is so many times its best"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        # A rule, and no pattern: its message would show what was given, and that may be the secret.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.webhook_variable):
            yield (
                "webhook_variable",
                "is no name of an environment variable; a URL would be stored with the run: export it as "
                "SCALETRAIN_WEBHOOK, and remove it here",
            )


class TrackSection(Section):
    """Where metrics go besides the run's own metrics files, and alerts."""

    tensorboard: bool = Field(True, description="write TensorBoard files into the run's folder")
    wandb: WandbSection | None = Field(None, description="to Weights & Biases; {} for the defaults")
    mlflow: MlflowSection | None = Field(None, description="to MLflow")
    prometheus: PrometheusSection | None = Field(None, description="for Prometheus; {} for the defaults")
    alerts: AlertsSection | None = Field(None, description="to a webhook; {} for the defaults")

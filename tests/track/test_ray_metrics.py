"""prometheus on a cluster: Ray's own exporter shows a run's metrics under the names that the dashboard asks for."""

from pathlib import Path
from urllib.request import urlopen

import pytest
from metric_rows import rows

from commands import wait_for
from scaletrain.config_track import PrometheusSection
from scaletrain.layout import RunLayout
from scaletrain.ray_cluster import connected
from scaletrain.track.prometheus import OF_A_ROW, Prometheus


@pytest.mark.long
def test_ray_exports_the_newest_row(tmp_path: Path) -> None:
    """With the run's name as a label, from the machine that runs the command."""
    import ray

    with connected(num_cpus=1):
        sink = Prometheus(PrometheusSection(), RunLayout(str(tmp_path), "seen"), total_steps=9, on_cluster=True)
        sink.open()
        everything = {"mfu": 0.4, "validation_loss": 2.0, "usd_per_hour": 3.0, "cost_usd": 1.5}
        sink.send([{**rows([4])[0], **everything}])
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

        def scraped() -> str:
            with urlopen(url) as answer:
                text: str = answer.read().decode()
            return text if "ray_scaletrain_cost_usd" in text else ""

        lines = wait_for(scraped, "the metrics", limit_s=90).splitlines()
        sink.close("finished")
    shown = [line for line in lines if line.startswith("ray_scaletrain_") and 'run="seen"' in line]
    assert {line.partition("{")[0] for line in shown} >= {f"ray_{name}" for name in OF_A_ROW}
    assert any(line.startswith("ray_scaletrain_loss{") and line.endswith(" 0.25") for line in shown)

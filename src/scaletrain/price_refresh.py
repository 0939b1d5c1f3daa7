"""A fresh price table, asked of AWS or Google with the caller's credentials: `scaletrain prices refresh`."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from scaletrain.errors import ClusterError, ConfigError
from scaletrain.machine_types import Cloud, MachineType, machine_type, machine_types
from scaletrain.price_table import Market, PriceList, PriceTable
from scaletrain.prices import PRICE_LIST_REGION, google_price_list, google_price_per_hour, price_per_hour

_MARKETS: tuple[Market, ...] = ("on-demand", "spot")
# How Google's API calls a GPU (https://cloud.google.com/compute/docs/gpus); 80 GB ones have names of their own.
_GOOGLES_GPUS: Mapping[tuple[str, int], str] = {
    ("T4", 16): "nvidia-tesla-t4",
    ("V100", 16): "nvidia-tesla-v100",
    ("L4", 24): "nvidia-l4",
    ("A100", 40): "nvidia-tesla-a100",
    ("A100", 80): "nvidia-a100-80gb",
    ("H100", 80): "nvidia-h100-80gb",
}


def wanted_types(cloud: Cloud, names: Sequence[str]) -> list[MachineType]:
    """The machine types to ask for, all known ones of a cloud by default; raises ConfigError for names of others."""
    known = [each for each in machine_types() if each.cloud == cloud]
    if not names:
        return known
    found = [(name, machine_type(name)) for name in names]
    wrong = [name for name, each in found if each is None or each.cloud != cloud]
    if wrong:
        raise ConfigError(
            [f"--machine {name}: no machine type of {cloud} that is known; see `scaletrain prices`" for name in wrong]
        )
    return [each for _, each in found if each is not None]


def ask_aws(
    kinds: Sequence[MachineType], *, region: str, ec2: Any, pricing: Any, today: date, tell: Callable[[str], None]
) -> PriceTable:
    """Ask AWS for prices in a region; `ec2` and `pricing` are its clients (see prices.py). Raises ClusterError."""

    def ask(kind: MachineType, market: Market) -> float | None:
        tell(f"{kind.name} ({market})")
        return price_per_hour(kind.name, market, region=region, zone=None, ec2=ec2, pricing=pricing)

    source = f"AWS, asked in {region}: the Price List API in {PRICE_LIST_REGION}, the dearest zone's spot price"
    return _table(kinds, ask, region=region, source=source, today=today)


def ask_google(kinds: Sequence[MachineType], *, region: str, billing: Any, today: date) -> PriceTable:
    """Ask Google for prices in a region; `billing` is the client of its Cloud Billing API. Raises ClusterError."""
    entries = google_price_list(billing, region)

    def ask(kind: MachineType, market: Market) -> float | None:
        return google_price_per_hour(
            entries,
            kind.name,
            market,
            vcpus=kind.vcpus,
            memory_gib=kind.memory_bytes / 2**30,
            gpus=kind.gpus,
            gpu_type=_GOOGLES_GPUS.get((kind.gpu, kind.gpu_memory_bytes // 2**30)) if kind.gpu else None,
        )

    source = f"Google, asked for {region}: the Cloud Billing Catalog API, the sum of CPUs, memory and GPUs"
    return _table(kinds, ask, region=region, source=source, today=today)


def _table(
    kinds: Sequence[MachineType],
    ask: Callable[[MachineType, Market], float | None],
    *,
    region: str,
    source: str,
    today: date,
) -> PriceTable:
    lists = []
    for market in _MARKETS:
        prices = {kind.name: price for kind in kinds if (price := ask(kind, market)) is not None}
        if prices:
            lists.append(PriceList(source, today, market, {region: prices}))
    if not lists:
        raise ClusterError(
            f"no price was to be had in {region}: look whether the region's name is right, and whether your "
            "credentials may read prices (AWS: pricing:GetProducts, ec2:DescribeSpotPriceHistory; Google: the Cloud "
            "Billing API switched on in the project)"
        )
    return PriceTable(lists)

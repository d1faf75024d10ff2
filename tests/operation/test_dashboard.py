"""A real Prometheus scrapes the real service under load, and every panel of the dashboard has data."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.service import free_port, running, running_service
from tests.operation.conftest import tool
from tests.operation.support import steady_load

KEY = "a-key-of-the-proof"
LOAD_SECONDS = 25
VARIABLES = {"$instance": ".*", "$__rate_interval": "15s"}


@pytest.fixture
def panels(root: Path) -> list[dict[str, Any]]:
    dashboard = json.loads((root / "monitoring/grafana/blip-serve.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(panel: dict[str, Any]) -> Iterator[str]:
    for target in panel["targets"]:
        query: str = target["expr"]
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        yield query


@pytest.mark.timeout(300)
def test_every_panel_has_data(
    root: Path, tmp_path: Path, panels: list[dict[str, Any]], figure: Callable[[str], None]
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    port = free_port()
    with running_service(profile="demo", api_keys=f"{KEY},another") as service:
        configuration = yaml.safe_load((root / "monitoring/prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(root / "monitoring/rules.yml")]
        (job,) = configuration["scrape_configs"]
        job["static_configs"][0]["targets"] = [service.url.removeprefix("http://")]
        job["authorization"]["credentials_file"] = str(key_file)
        file = tmp_path / "prometheus.yml"
        file.write_text(yaml.safe_dump(configuration))
        command = [
            *(tool("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'data'}"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"),
        ]
        with running(command, port, "/-/ready") as prometheus:
            url = prometheus.url
            asyncio.run(under_load(service.url))
            empty = [panel["title"] for panel in panels if not all(has_data(url, query) for query in queries(panel))]
            rules = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    figure(f"dashboard under load: {len(panels) - len(empty)} panels with data of {len(panels)}")
    assert empty == []
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] == []


async def under_load(url: str) -> None:
    async with steady_load(url, 8, {"X-API-Key": KEY}) as load:
        await asyncio.sleep(LOAD_SECONDS)
    assert load.sent > 0
    assert load.failed == 0


def has_data(url: str, query: str) -> bool:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return any(not math.isnan(float(series["value"][1])) for series in answer["data"]["result"])

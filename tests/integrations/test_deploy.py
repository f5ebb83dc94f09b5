"""The dashboard and the alerts: sound in themselves, and about metrics that there are.

A real Prometheus scrapes a real endpoint, and every expression is put to it.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from cachecore.integrations.metrics import METRICS
from cachecore.integrations.prometheus import CacheCollector
from cachecore.server.http import StatusServer
from cachecore.tiers.testing import eventually
from integrations.watched import Samples, caches, samples
from servers import Server

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "cachecore.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
# Grafana's names of units that the panels may use.
UNITS = {"Bps", "bytes", "none", "ops", "percentunit", "reqps", "s", "short"}
VARIABLES = {"$__rate_interval": "30s", "$cache": ".*", "$instance": ".*"}
RANGE = re.compile(r"\[[^]]+\]")


def expressions() -> dict[str, str]:
    """All that the dashboard and the alerts ask for, by where it stands."""
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found[f"{panel['title']} {target['refId']}"] = expression
    return found


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The metrics that an expression names, each with the values of labels that it asks for."""
    for name, inner in re.findall(r"\b(cachecore_\w+)(?:\{([^}]*)\})?", expression):
        wanted = re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', inner)
        yield name, {label: value if how == "=" else "" for label, how, value in wanted}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, redis: Server) -> Iterator[StatusServer]:
    """Caches of every kind on a real port; they are used by whoever scrapes."""
    collector = CacheCollector(None)
    with caches(tmp_path_factory.mktemp("caches"), redis.port) as made:
        for name, cache in made.named.items():
            collector.add(cache, name)

        def use() -> str:
            made.use(5)
            made.server.calls += 1
            return ""

        with StatusServer(collector, port=0, health=use) as server:
            yield server


def exposed(endpoint: StatusServer) -> Samples:
    with urlopen(f"{endpoint.url}metrics") as answer:
        return samples(answer.read().decode())


# --- against what is exposed


@pytest.mark.parametrize("place", expressions())
def test_every_metric_and_label_of_an_expression_exists(endpoint: StatusServer, place: str) -> None:
    found = exposed(endpoint)
    declared = {name: set[str]() for name, _ in found}
    values: dict[tuple[str, str], set[str]] = {}
    for name, pairs in found:
        for label, value in pairs:
            declared[name].add(label)
            values.setdefault((name, label), set()).add(value)
    declared["cachecore_unread_total"] = {"cache"}  # there are no samples while all is well
    named = list(selectors(expressions()[place]))
    assert named
    for name, labels in named:
        assert name in declared
        for label, value in labels.items():
            if label != "instance":  # Prometheus adds it
                assert label in declared[name], (name, label)
                assert not value or value in values[name, label], (name, label, value)


def test_what_does_not_exist_is_found() -> None:
    found = list(selectors('sum(cachecore_x{a="b", c!="d"}) / cachecore_y > 2'))
    assert found == [("cachecore_x", {"a": "b", "c": ""}), ("cachecore_y", {})]


# --- in themselves


def test_panels_say_what_they_show() -> None:
    assert len(PANELS) >= 20
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_variable_is_declared() -> None:
    declared = {each["name"] for each in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    text = json.dumps([panel["targets"] for panel in PANELS])
    assert set(re.findall(r"\$\{?(\w+)", text)) == declared


def test_every_metric_of_note_is_on_the_dashboard() -> None:
    shown = json.dumps(PANELS)
    left_out = {"deletions", "inserts", "feature_events", "server_command_duration_seconds"}
    for metric in METRICS:
        assert (f"cachecore_{metric.name}" in shown) == (metric.name not in left_out), metric.name


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith((".", "?"))


@pytest.mark.parametrize("command", ["check rules alerts.yml", "test rules alerts_test.yml"])
def test_promtool_agrees(command: str) -> None:
    done = subprocess.run(
        ["promtool", *command.split()], cwd=ALERTS.parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    cases = yaml.safe_load((ALERTS.parent / "alerts_test.yml").read_text())["tests"]
    fired = {
        test["alertname"]
        for case in cases
        for test in case["alert_rule_test"]
        if test.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in RULES}


# --- in a real Prometheus


class Prometheus:
    """A Prometheus that scrapes an endpoint every fifth of a second."""

    def __init__(self, folder: Path, target: StatusServer) -> None:
        config = {
            "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": "cachecore", "static_configs": [
                    {"targets": [f"127.0.0.1:{target.port}"]},
                ]},
            ],
        }  # fmt: skip
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

        def command(port: int) -> list[str]:
            options = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}"]
            return ["prometheus", f"--config.file={folder / 'prometheus.yml'}", *options]

        self.server = Server(command, folder)

    def get(self, path: str, **query: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.server.port}{path}?{urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        return list(self.get("/api/v1/query", query=expression)["result"])


@pytest.fixture(scope="module")
def prometheus(
    endpoint: StatusServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), endpoint)

    def has_seen_enough() -> bool:
        urlopen(f"{endpoint.url}healthz").close()
        try:
            seen = running.query("count_over_time(cachecore_server_clients[1m])")
        except HTTPError:  # it is not ready yet
            return False
        return bool(seen) and float(seen[0]["value"][1]) > 5

    try:
        end = time.monotonic() + 60  # it looks for targets after 5 seconds
        while not has_seen_enough():
            assert time.monotonic() < end
            time.sleep(0.05)
        yield running
    finally:
        running.server.kill()


def test_prometheus_takes_all_that_is_exposed(
    prometheus: Prometheus, endpoint: StatusServer
) -> None:
    (target,) = prometheus.get("/api/v1/targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    names = set(prometheus.get("/api/v1/label/__name__/values"))
    assert {name for name, _ in exposed(endpoint)} <= names


def test_prometheus_knows_kinds_and_units(prometheus: Prometheus) -> None:
    told = prometheus.get("/api/v1/metadata")
    for metric in METRICS:
        name = f"cachecore_{metric.name}" + ("_total" if metric.kind == "counter" else "")
        if metric.name != "feature_events":
            kinds = {each["type"] for each in told.get(name, told.get(name[:-6], []))}
            assert kinds == {metric.kind}, name


QUIET = {rule["alert"] for rule in RULES} - {"CacheUpstreamDown"}  # alerts that are no alerts here


@pytest.mark.parametrize("place", expressions())
def test_prometheus_answers_every_expression(prometheus: Prometheus, place: str) -> None:
    found = prometheus.query(expressions()[place])
    assert found or place in QUIET
    if "histogram_quantile" in expressions()[place]:
        quantiles = [float(each["value"][1]) for each in found]  # NaN of what was not called
        assert any(0 < quantile < 60 for quantile in quantiles)


def test_alerts_are_loaded_and_evaluated(prometheus: Prometheus) -> None:
    (group,) = prometheus.get("/api/v1/rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in RULES]
    eventually(
        lambda: all(
            rule["health"] == "ok" for rule in prometheus.get("/api/v1/rules")["groups"][0]["rules"]
        )
    )
    states = {rule["name"]: rule["state"] for rule in group["rules"]}
    assert states["CacheBreakerOpen"] == "pending"  # the source's breaker is open, not for long

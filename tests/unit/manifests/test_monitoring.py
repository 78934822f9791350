"""Alerts and dashboard speak of metrics that are there, in words that Prometheus understands."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.controller.test_policy_metrics import WEEKLY, status
from truekeep.controller.health import Metrics
from truekeep.controller.policy_metrics import CONDITIONS, PolicyMetrics
from truekeep.server.metrics import Metrics as ServerMetrics

FOLDER = Path(__file__).parents[3] / "manifests" / "monitoring"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def groups() -> list[dict[str, Any]]:
    (rule,) = documents("rules.yaml")
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    (config,) = documents("dashboard.yaml")
    found: dict[str, Any] = json.loads(config["data"]["truekeep.json"])
    return found


def expressions() -> Iterator[str]:
    for rule in alerts():
        yield rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]


def known() -> dict[str, set[str]]:
    """Names of all samples that operator and server show, with their labels."""
    operator, policies = Metrics(), PolicyMetrics()
    operator.registry.register(policies)
    policies.tell(WEEKLY, status())
    operator.gauge("leader", "x", lambda: 1.0)
    operator.gauge("retrying", "x", lambda: 0.0)
    operator.reconciled("Model", "ok", 0.1)
    found: dict[str, set[str]] = {}
    for text in (operator.text().decode(), ServerMetrics().page().decode()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_is_there_with_its_labels() -> None:
    there = known()
    for expression in expressions():
        names = re.findall(r"truekeep_[a-z0-9_]+", expression)
        assert names, expression
        assert set(names) <= set(there), expression
        for name, matchers in re.findall(r"(truekeep_[a-z0-9_]+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"([a-z_]+)=~?\"", matchers))
            assert labels <= there[name], expression
        for value in re.findall(r'condition="(\w+)"', expression):
            assert value in CONDITIONS, expression


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    assert len(alerts()) >= 10
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_panels_have_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_a_real_prometheus_answers_every_query_and_rings(tmp_path: Path) -> None:
    """Fed with what an operator with a drifted policy shows: every expression is evaluated, and the right ones ring."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
    with serving(operator_page()) as target, prometheus(tmp_path, target) as api:
        wanted = "truekeep_policy_condition"
        until(lambda: bool(ask(api, f"query?query={wanted}")["result"]))
        for expression in expressions():
            if expression.startswith("label_values("):
                continue  # Grafana's own
            plain = re.sub(r'=~"\$\w+"', '=~".*"', expression)
            answer = ask(api, "query?" + urllib.parse.urlencode({"query": plain}))
            assert answer["resultType"] in {"vector", "scalar"}
            if expression.startswith(("truekeep_policy", "topk", "time() - truekeep")) and "==" not in expression:
                assert answer["result"] or ">" in expression, expression
        until(lambda: "TruekeepDrift" in {alert["labels"]["alertname"] for alert in ask(api, "alerts")["alerts"]})
        rules = [rule for group in ask(api, "rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alerts()}
        until(lambda: all(r["health"] == "ok" for g in ask(api, "rules")["groups"] for r in g["rules"]))


def operator_page() -> bytes:
    operator, policies = Metrics(), PolicyMetrics()
    operator.registry.register(policies)
    policies.tell(WEEKLY, status())
    operator.gauge("leader", "x", lambda: 1.0)
    operator.gauge("retrying", "x", lambda: 0.0)
    return operator.text()


@contextmanager
def serving(page: bytes) -> Iterator[str]:
    """A page at /metrics on the loopback; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that reads it, with our rules; the address of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scrape = {"job_name": "t", "honor_labels": True, "static_configs": [{"targets": [target]}]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    options = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
        try:
            yield f"http://127.0.0.1:{port}/api/v1/"
        finally:
            process.terminate()
            process.wait(20)


def ask(api: str, path: str) -> Any:
    """The data of an answer. AssertionError where Prometheus refuses the query."""
    try:
        with urllib.request.urlopen(api + path, timeout=10) as response:
            body = json.load(response)
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
    except OSError:
        return {"result": [], "alerts": [], "groups": []}  # not up yet
    assert body["status"] == "success", body
    return body["data"]


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)

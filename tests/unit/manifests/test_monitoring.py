"""Alerts and dashboard speak of metrics that are there, in words that Prometheus understands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from images import manifests
from prometheus_client.parser import text_string_to_metric_families

from tests.prometheus import promtool, running, until
from tests.unit.controller.fake_cluster import Clock, FakeApi
from tests.unit.controller.test_policy_metrics import WEEKLY, status
from tests.unit.resources.samples import INTENT, model
from truekeep.api.common import Condition
from truekeep.cluster.lease import Elector
from truekeep.controller.health import Metrics
from truekeep.controller.policy_metrics import CONDITIONS
from truekeep.domain.plan import Settings
from truekeep.operator_main import LEASE, Config, Operator, configuration
from truekeep.resources.serving_deployment import serving_deployment
from truekeep.server.metrics import Metrics as ServerMetrics

FOLDER = Path(__file__).parents[3] / "manifests" / "monitoring"
ALERT_TESTS = Path(__file__).with_name("alerts.yaml")
METRIC = r"\b(?:truekeep|process)_[a-z0-9_]+"


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
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(re.findall(METRIC, expression))


def plain(expression: str) -> str:
    """An expression as Grafana would send it: its variables filled in."""
    return re.sub(r'=~"\$\w+"', '=~".*"', expression).replace("$__range", "5m")


def operator_metrics() -> Metrics:
    """What an operator shows that has looked at a Model, a run and a drifted policy: as `operator_main` sets it up."""

    async def made() -> Metrics:
        metrics, clock = Metrics(), Clock()
        api: Any = FakeApi(clock)
        elector = Elector(api, "truekeep-system", LEASE, "operator-0")
        operator = Operator(Config(Settings()), api, metrics, elector, asyncio.Event())
        await elector.step()
        operator._policies.tell(WEEKLY, status())
        said = {"type": "Ready", "observedGeneration": 1, "lastTransitionTime": clock.moment}
        for reason, ready in (("Training", "False"), ("Serving", "True"), ("NoReadyPod", "False")):
            condition = Condition.model_validate({**said, "status": ready, "reason": reason})
            operator._states.tell("Model", "shop", "late", [condition])
        operator._watch._heard(SimpleNamespace(plural="pods"))
        metrics.reconciled("Model", "success", 0.1)
        metrics.reconciled("Model", "error", 0.1)
        metrics.waited("Model", 0.1)
        metrics.called("get", "Model", "200", 0.01)
        metrics.wrote("apply", "Service")
        return metrics

    return asyncio.run(made())


def known() -> dict[str, set[str]]:
    """Names of all samples that operator and server show, with their labels and those of a target."""
    found: dict[str, set[str]] = {}
    for text in (operator_metrics().text().decode(), ServerMetrics().page().decode()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {"pod", "container"}).update(sample.labels)
    return found


def test_every_metric_is_there_with_its_labels() -> None:
    there = known()
    for expression in expressions():
        names = metric_names(expression)
        assert names, expression
        assert names <= set(there), (names - set(there), expression)
        for name, matchers in re.findall(rf"({METRIC})\{{([^}}]*)\}}", expression):
            labels = set(re.findall(r"([a-z_]+)[=!]~?\"", matchers))
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


def test_every_alert_rings_in_its_trouble_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
    shutil.copy(ALERT_TESTS, tmp_path)
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")
    promtool("test", "rules", tmp_path / ALERT_TESTS.name)
    cases = [case for each in yaml.safe_load(ALERT_TESTS.read_text())["tests"] for case in each["alert_rule_test"]]
    rings = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert rings == silent == {rule["alert"] for rule in alerts()}


def test_a_test_of_alerts_can_fail(tmp_path: Path) -> None:
    changed = [{**rule, "expr": rule["expr"].replace("== 0", "== 1")} for rule in alerts()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": changed}]}))
    shutil.copy(ALERT_TESTS, tmp_path)
    with pytest.raises(AssertionError, match="TruekeepDataBroken"):
        promtool("test", "rules", tmp_path / ALERT_TESTS.name)


def test_a_real_prometheus_answers_every_query_and_rings(tmp_path: Path) -> None:
    """Fed with what an operator with a drifted policy shows, and a server: every expression is evaluated, and the right
    ones ring."""
    pages = {"/operator": operator_metrics().text, "/server": ServerMetrics().page}
    with serving(pages) as target:
        scrape = [
            {
                "job_name": path.strip("/"),
                "metrics_path": path,
                "honor_labels": True,
                "static_configs": [{"targets": [target], "labels": {"container": path.strip("/")}}],
            }
            for path in pages
        ]
        with running(tmp_path, scrape, groups()) as prometheus:
            until(
                lambda: all(prometheus.query(name) for name in ("truekeep_policy_condition", "truekeep_server_ready"))
            )
            names = {each["metric"]["__name__"] for each in prometheus.query('{__name__=~".+"}')}
            for expression in expressions():
                if expression.startswith("label_values("):
                    continue  # Grafana's own
                series = prometheus.query(plain(expression))
                assert metric_names(expression) <= names, expression
                if expression.startswith(("truekeep_policy", "topk", "time() - truekeep")) and "==" not in expression:
                    assert series or ">" in expression, expression
            until(
                lambda: "TruekeepDrift" in {each["labels"]["alertname"] for each in prometheus.ask("alerts")["alerts"]}
            )
            rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
            assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alerts()}
            until(lambda: all(r["health"] == "ok" for g in prometheus.ask("rules")["groups"] for r in g["rules"]))


def test_a_server_shows_as_much_after_any_traffic() -> None:
    metrics = ServerMetrics()
    before = len(metrics.page().splitlines())
    random = np.random.default_rng(3)
    for outcome in metrics.requests.values():
        outcome.inc(1000)
    for seconds in random.exponential(size=1000):
        metrics.seconds.observe(float(seconds))
    metrics.predictions.observe_all(random.random(100_000))
    assert len(metrics.page().splitlines()) == before < 200


def test_datadog_is_told_where_operator_and_servers_are_read(tmp_path: Path) -> None:
    """The component on top of the default: its annotations name containers and ports that there are."""
    up = os.path.relpath(FOLDER.parent, tmp_path)
    overlay = {"resources": [f"{up}/default"], "components": [f"{up}/monitoring/datadog"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    rendered = [each for each in yaml.safe_load_all(manifests.rendered(tmp_path)) if each]
    (deployment,) = (each for each in rendered if each["kind"] == "Deployment")
    operator = deployment["spec"]["template"]
    (container,) = operator["spec"]["containers"]
    environment = {each["name"]: each.get("value", "") for each in container["env"]}
    settings = configuration(environment).settings
    assert {"POD_NAME", "POD_NAMESPACE"} < set(environment), "the rest is as it was"
    for intent in (INTENT, replace(INTENT, revision=9)):
        server = serving_deployment(model(), intent, settings)["spec"]["template"]
        for template, prefix in ((operator, "truekeep_policy_condition"), (server, "truekeep_server_ready")):
            ((name, text),) = template["metadata"]["annotations"].items()
            named = re.fullmatch(r"ad\.datadoghq\.com/(\w+)\.checks", name)
            assert named is not None
            (owner,) = (each for each in template["spec"]["containers"] if each["name"] == named[1])
            (instance,) = json.loads(text)["openmetrics"]["instances"]
            port = next(each["containerPort"] for each in owner["ports"] if each["name"] == "http")
            assert instance["openmetrics_endpoint"] == f"http://%%host%%:{port}/metrics"
            assert any(re.match(pattern, prefix) for pattern in instance["metrics"])
    frozen = serving_deployment(model(), INTENT, Settings())["spec"]["template"]
    assert serving_deployment(model(), INTENT, settings, frozen)["spec"]["template"] == frozen, "no pod is started anew"


@contextmanager
def serving(pages: Mapping[str, Callable[[], bytes]]) -> Iterator[str]:
    """Pages on the loopback; their host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pages[self.path]())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()

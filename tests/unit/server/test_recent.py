"""What was counted lately, as the operator asks for it."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.server.conftest import MODEL, Published, Start, body
from truekeep.contract.requests import REHEARSAL_HEADER
from truekeep.server.metrics import PROBABILITIES, SECONDS, Buckets, Metrics
from truekeep.server.recent import EVERY_SECONDS, KEPT, Recent


class Counter:
    """A clock and a counter, moved by hand."""

    def __init__(self) -> None:
        self.now, self.count = 100.0, 0.0
        self.recent = Recent(lambda: (self.count,), lambda: self.now)

    def live(self, seconds: float, rate: float) -> None:
        for _ in range(round(seconds / EVERY_SECONDS)):
            self.recent.keep()
            self.now += EVERY_SECONDS
            self.count += rate * EVERY_SECONDS


def test_what_was_counted_in_the_last_seconds() -> None:
    server = Counter()
    server.live(50, rate=1)
    server.live(50, rate=10)
    assert server.recent.since(20) == (20, (200,))
    assert server.recent.since(22) == (25, (250,)), "a little more rather than less"
    assert server.recent.since(60) == (60, (510,))


def test_a_young_server_tells_all_it_has() -> None:
    server = Counter()
    assert server.recent.since(30) == (0, (0,))
    server.now, server.count = 101, 5
    assert server.recent.since(30) == (1, (5,))


def test_more_than_an_hour_is_not_remembered() -> None:
    server = Counter()
    server.live(2 * KEPT * EVERY_SECONDS, rate=1)
    length, (count,) = server.recent.since(1e9)
    assert length == count == KEPT * EVERY_SECONDS


def test_buckets_count_many_as_they_count_one() -> None:
    values = np.array([0.0, 0.001, 0.0011, 0.5, 0.9991, 1.0])
    one, many = (Buckets("x", "x", PROBABILITIES) for _ in range(2))
    for value in values:
        one.observe(value)
    many.observe_all(values)
    assert one.counts == many.counts
    assert sum(many.counts) == 6
    assert many.counts[0] == 2, "a bound belongs to the bucket below it"
    assert many.counts[-1] == 2


@pytest.mark.parametrize("bounds", [SECONDS, PROBABILITIES])
def test_bounds_grow(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_the_recent_page_is_text_of_the_same_form() -> None:
    metrics = Metrics()
    metrics.requests["ok"].inc(3)
    metrics.seconds.observe(0.0042)
    metrics.predictions.observe_all(np.array([0.3, 0.7]))
    families = {family.name: family for family in text_string_to_metric_families(metrics.recent_page(60).decode())}
    outcomes = {each.labels["outcome"]: each.value for each in families["truekeep_server_requests"].samples}
    assert outcomes == {"ok": 3, "client_error": 0, "server_error": 0, "rejected": 0, "rehearsal": 0}
    buckets = {each.labels.get("le"): each.value for each in families["truekeep_server_predictions"].samples}
    assert (buckets["0.25"], buckets["0.3"], buckets["0.7"], buckets["+Inf"]) == (0, 1, 2, 2)
    assert "truekeep_server_request_seconds" in families


def test_a_server_tells_what_it_counted_and_keeps_rehearsals_apart(published: Published, start: Start) -> None:
    server = start(published.request()).ready()
    path = f"/v2/models/{MODEL}/infer"
    with server.client() as client:
        assert client.post(path, json=body()).status_code == 200
        assert client.post(path, json=body(), headers={REHEARSAL_HEADER: "true"}).status_code == 200
        page = client.get("/metrics?seconds=60").text
        refused = client.get("/metrics?seconds=-1")
    assert refused.status_code == 400
    assert "whole number" in refused.json()["error"]
    counted = {
        (sample.name, sample.labels.get("outcome"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert counted["truekeep_server_requests_total", "ok", None] == 1
    assert counted["truekeep_server_requests_total", "rehearsal", None] == 1
    assert counted["truekeep_server_predictions_count", None, None] == len(body()["inputs"][0]["data"])
    assert counted["truekeep_server_request_seconds_count", None, None] == 1

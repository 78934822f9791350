"""New files in the lake end as a new serving revision, and nobody does anything for it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.shop import BEGINS, DAYS, ROWS_PER_DAY, Shop, merged, open_shop, small_model
from tests.story.kube import Kube
from tests.story.narrator import Narrator
from tests.story.stage import Stage
from truekeep.cli.examples import fraud, world
from truekeep.cli.examples.upload import upload

pytestmark = pytest.mark.full  # a CronJob looks once a minute at most
NAMESPACE = "truekeep-e2e-retraining"
MODEL = "payments"
MORE_DAYS = 12
WANTED = {
    "retraining": {"newData": {"minRows": MORE_DAYS * ROWS_PER_DAY // 2, "cron": "* * * * *"}, "cooldownSeconds": 0}
}


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[Shop]:
    """A Model that is retrained for new rows, live."""
    with open_shop(kube, NAMESPACE, {MODEL: merged(small_model(MODEL), {"spec": WANTED})}) as shop:
        yield shop


def later_files(folder: Path) -> None:
    """The days that follow, as files of the same prefixes."""
    end = BEGINS + timedelta(days=DAYS)
    tables = fraud.tables(end, MORE_DAYS, ROWS_PER_DAY, end + timedelta(days=3660), seed=8)
    for name, made in tables.items():
        renamed = pc.binary_join_element_wise("later-", made["payment_id"], "")
        table = made.set_column(made.column_names.index("payment_id"), "payment_id", renamed)
        path = folder / world.LAKE / "fraud" / name / "later.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = io.BytesIO()
        pq.write_table(table, sink)
        path.write_bytes(sink.getvalue())


def test_new_files_become_a_new_revision_that_serves(shop: Shop) -> None:
    shop.until("a count of what is new", 150, lambda: (shop.model(MODEL)["status"].get("newData") or {}).get("newest"))
    assert shop.model(MODEL)["status"]["newData"]["rows"] == 0
    assert len(shop.runs(MODEL)) == 1
    with shop.unharmed(MODEL):
        with Stage(shop.kube, NAMESPACE, Narrator()) as stage, TemporaryDirectory() as folder:
            stage.open_store()
            later_files(Path(folder))
            upload(Path(folder), stage.endpoint, lambda done, of: None)
        shop.ready(MODEL, 2, seconds=300)
    first, second = shop.runs(MODEL)
    trigger = second["spec"]["trigger"]
    assert trigger["type"] == "NewData"
    assert "labelled rows are newer than" in trigger["message"]
    assert second["status"]["data"]["windowEnd"] > first["status"]["data"]["windowEnd"]
    pods = shop.pods(MODEL, "newdata")
    assert pods
    assert all(pod["spec"]["automountServiceAccountToken"] is False for pod in pods)
    # What was trained on is not new any more: the next count says so, and starts nothing.
    since = second["status"]["data"]["windowEnd"]
    count = lambda: shop.model(MODEL)["status"].get("newData") or {}  # noqa: E731
    shop.until("a count from there on", 150, lambda: count().get("since") == since and count().get("newest"))
    assert len(shop.runs(MODEL)) == 2

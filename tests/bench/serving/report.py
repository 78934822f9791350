"""The table, and what it says of the goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.serving.contenders import CAPTURING, CONTENDERS, ECHO, OURS, PEERS_OF_OURS, PLAIN
from tests.bench.serving.measure import Measured

Cell = tuple[int, str, int]  # rows a request, contender, connections


@dataclass(frozen=True)
class Goal:
    """What is wanted, what was found."""

    words: str
    found: str
    met: bool

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'}  {self.words}: {self.found}"


def table(cells: Mapping[Cell, Measured]) -> Iterator[str]:
    """Its lines."""
    yield (
        f"{'rows':>4} {'connections':>11}  {'':28} {'rps':>9} {'of the echo':>11} {'p50 ms':>8} {'p99 ms':>8} "
        f"{'CPU µs':>8}"
    )
    order = {name: place for place, name in enumerate(CONTENDERS)}
    for (rows, name, connections), found in sorted(
        cells.items(), key=lambda one: (one[0][0], one[0][2], order[one[0][1]])
    ):
        echo = cells.get((rows, ECHO, connections))
        share = f"{found.rate / echo.rate:11.1%}" if echo else " " * 11
        odd = f"  {found.failed} FAILED" if found.failed else ""
        odd += f"  {found.dropped} rows NOT CAPTURED" if found.dropped else ""
        yield (
            f"{rows:4d} {connections:11d}  {name:28} {found.rate:9,.0f} {share} {found.p50:8.3f} {found.p99:8.3f} "
            f"{found.cpu:8.1f}{odd}"
        )


def goals(cells: Mapping[Cell, Measured]) -> Iterator[Goal]:
    """Those that the table can say something about."""
    rows_measured = sorted({rows for rows, _, _ in cells})
    for rows in rows_measured:
        for connections in sorted({connections for _, _, connections in cells}):
            ours, echo = cells.get((rows, OURS, connections)), cells.get((rows, ECHO, connections))
            if rows == 1 and ours and echo:
                share = ours.rate / echo.rate
                yield Goal(
                    f"1 row, {connections} connections: at least 50 % of the echo's rps", f"{share:.1%}", share >= 0.5
                )
        best, peer = _best(cells, rows, [OURS]), _best(cells, rows, PEERS_OF_OURS)
        if best and peer:
            wanted = 15 if rows == 1 else 10
            times = best[1].rate / peer[1].rate
            yield Goal(
                f"{rows} row{'s' * (rows > 1)}: at least {wanted} times the best peer ({peer[0][1]} at {peer[0][2]})",
                f"{times:.1f} times",
                times >= wanted,
            )
        ours, plain = cells.get((rows, OURS, 16)), cells.get((rows, PLAIN, 1))
        if ours and plain:
            yield Goal(
                f"{rows} row{'s' * (rows > 1)}: p99 at 16 connections under MLServer's p50 at 1",
                f"{ours.p99:.2f} ms, {plain.p50:.2f} ms",
                ours.p99 < plain.p50,
            )
        for connections in sorted({connections for _, _, connections in cells}):
            ours, capturing = cells.get((rows, OURS, connections)), cells.get((rows, CAPTURING, connections))
            if ours and capturing:
                cost = 1 - capturing.rate / ours.rate
                whole = f"{cost:.1%} of the rps" + (f", {capturing.dropped} rows lost" if capturing.dropped else "")
                yield Goal(
                    f"{rows} row{'s' * (rows > 1)}, {connections} connections: capture of all costs at most 10 %",
                    whole,
                    cost <= 0.1 and not capturing.dropped,
                )


def _best(cells: Mapping[Cell, Measured], rows: int, names: Sequence[str]) -> tuple[Cell, Measured] | None:
    found = [(cell, one) for cell, one in cells.items() if cell[0] == rows and cell[1] in names]
    return max(found, key=lambda one: one[1].rate, default=None)

"""The trials of a tuning in a run's report: a drawing of the best ones, and a table of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truekeep.pages.skeleton import facts, table, text
from truekeep.trainer.text import counted

DRAWN = 30  # trials, the best first
WIDTH = 320
ROW = 26  # of the drawing, a trial each
MARGIN = 6
SAID = 120  # characters of a trial's message; the record has all

Trial = Mapping[str, Any]


def section(tuning: Mapping[str, Any] | None) -> Iterator[str]:
    """HTML of a record's `training.tuning`; nothing where nothing was tuned."""
    if not tuning:
        return
    trials, folds, best = tuning["trials"], tuning["folds"], tuning["best"]
    scored = sorted(
        (one for one in trials if one["mean"] is not None), key=lambda one: (-float(one["mean"]), one["index"])
    )
    yield f"<h2>Tuning: {len(scored)} of {counted(len(trials), 'trial')} scored</h2>"
    if best is None:
        yield '<p class="bad">No trial has a score on every fold, so that nothing could be chosen.</p>'
    else:
        yield f"<p>Trial {best['index']} was the best: <b>{text(values(best))}</b>, {text(tuning['metric'])} "
        yield f"{float(best['mean']):.4f} in the mean of {counted(len(folds), 'fold')}. No row that judged the model "
        yield "was in any of them.</p>"
    yield from _drawing(scored[:DRAWN], tuning["metric"], best["index"] if best else None)
    yield "<details><summary>All trials</summary>"
    names = [parameter["name"] for parameter in trials[0]["parameters"]]
    head = ("trial", "mean", *names, "status", *(f"fold {n}" for n in range(1, len(folds) + 1)), "seconds", "why")
    rest = [one for one in trials if one["mean"] is None]
    rows = [_row(one, len(folds)) for one in [*scored, *rest]]
    yield from table(head, rows, ["" if one["mean"] is not None else "NotJudged" for one in [*scored, *rest]])
    yield "</details><details><summary>Folds and budget</summary>"
    rows = [
        (
            str(number),
            f"{fold['trainRows']:,}",
            f"{fold['rows']:,}",
            f"{fold['positives']:,}",
            fold["since"],
            fold["until"],
        )
        for number, fold in enumerate(folds, 1)
    ]
    yield from table(("fold", "fitted on rows", "scored on rows", "positives", "since", "until"), rows)
    yield from facts(
        [
            ("search", f"{tuning['search']}, seed {tuning['seed']}"),
            ("began", tuning["started"]),
            ("budget", f"{tuning['timeoutSeconds']:,} seconds for all trials"),
            ("image", tuning["image"]),
            ("digest of data", tuning["dataDigest"] or ""),
        ]
    )
    yield "</details>"


def values(one: Trial) -> str:
    """Example: C 0.1, penalty l2."""
    return ", ".join(f"{parameter['name']} {parameter['value']}" for parameter in one["parameters"])


def short(one: Trial) -> str:
    """Example: 0.1, l2."""
    return ", ".join(parameter["value"] for parameter in one["parameters"])


def _row(one: Trial, folds: int) -> Sequence[str]:
    scores = [f"{float(score):.4f}" for score in one["scores"]]
    return (
        str(one["index"]),
        f"{float(one['mean']):.4f}" if one["mean"] is not None else "–",
        *(parameter["value"] for parameter in one["parameters"]),
        one["status"],
        *scores,
        *["–"] * (folds - len(scores)),
        one["seconds"] or "–",
        one["message"][:SAID],
    )


def _drawing(scored: Sequence[Trial], metric: str, best: int | None) -> Iterator[str]:
    """A line a trial: its folds from the worst to the best, and a dot for the mean."""
    if not scored:
        return
    ends = [float(score) for one in scored for score in one["scores"]]
    low, high = min(ends), max(ends)
    wide = (high - low) or 1.0

    def x(score: str) -> str:
        return f"{MARGIN + (WIDTH - 2 * MARGIN) * (float(score) - low) / wide:.1f}"

    yield f'<p class="soft">Each trial’s {text(metric)}: the line goes from its worst to its best fold, the dot is the '
    yield "mean. The best trials first, each with its "
    yield f"{text(', '.join(parameter['name'] for parameter in scored[0]['parameters']))}.</p>"
    height = ROW * len(scored) + 14
    yield f'<svg class="bars" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="trials">'
    for place, one in enumerate(scored):
        y = ROW * place + 18
        folds = sorted(one["scores"], key=float)
        words = f"{one['index']}{' ★' if one['index'] == best else ''}: {short(one)}"
        yield f'<text class="name" x="0" y="{y - 7}">{text(words, 44)}</text>'
        yield f'<text class="word" x="{WIDTH}" y="{y - 7}" text-anchor="end">{float(one["mean"]):.4f}</text>'
        yield f'<rect class="track" x="0" y="{y - 1}" width="{WIDTH}" height="2"/>'
        yield f'<line class="span" x1="{x(folds[0])}" x2="{x(folds[-1])}" y1="{y}" y2="{y}"/>'
        yield f'<circle class="dot" cx="{x(one["mean"])}" cy="{y}" r="4"/>'
    yield f'<text class="word" x="0" y="{height - 2}">{low:.4f}</text>'
    yield f'<text class="word" x="{WIDTH}" y="{height - 2}" text-anchor="end">{high:.4f}</text></svg>'


__all__ = ["section", "short", "values"]

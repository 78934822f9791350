"""What every page shares: the document with its policy, its looks, and tables and lists made from plain text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6675;--line:#d9dee6;--page:#f6f7f9;--card:#fff;--then:#9aa5b4;
--now:#1565c0;--bad:#b3261e;--warn:#8a5a00;--good:#1b6e3c}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa5b4;--line:#323a47;--page:#12161d;--card:#1a202a;
--then:#6b7686;--now:#64b5f6;--bad:#ff8a80;--warn:#ffca66;--good:#81c995}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.35rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .6rem}h3{font-size:1rem;margin:0}
p{margin:.3rem 0}.soft{color:var(--soft)}
ul{padding:0;margin:0;list-style:none}
li{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;margin:.5rem 0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.8rem}
article{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.8rem;min-width:0}
svg{display:block;width:100%;height:auto;margin:.4rem 0 0}
.limit{stroke:var(--bad);stroke-width:2}.track{fill:var(--line)}.axis{stroke:var(--line)}
.base{stroke:var(--soft);stroke-dasharray:4 3}
.ends{display:flex;justify-content:space-between;font-size:.8rem;color:var(--soft)}
table{width:100%;border-collapse:collapse;font-size:.85rem;margin-top:.4rem}
td,th{text-align:right;padding:.1rem .2rem;font-weight:400;white-space:nowrap}
td:first-child,th:first-child{text-align:left;white-space:normal}
th{color:var(--soft)}
.wide td:first-child,.wide th:first-child{min-width:7rem}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--soft)}.wide{overflow-x:auto}
"""


def document(title: str, style: str, body: Iterable[str]) -> str:
    """The page. `title` is plain text; `style` is CSS of ours, beyond `STYLE`; `body` is HTML, already escaped."""
    looks = STYLE + style
    hashed = base64.b64encode(hashlib.sha256(looks.encode()).digest()).decode()
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{hashed}'; "
            "base-uri 'none'; form-action 'none'\">",
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{text(title)}</title><style>{looks}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def text(plain: str, most: int | None = None) -> str:
    """The text as HTML, what can't be printed as a question mark; cut to `most` characters."""
    if most is not None and len(plain) > most:
        plain = plain[: most - 1] + "…"
    return escape("".join(letter if letter.isprintable() else "?" for letter in plain), quote=True)


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] = (), most: int = 500
) -> Iterator[str]:
    """A table of plain text that scrolls by itself where it is too wide. `kinds`: a class of ours for each row."""
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{text(one)}</th>" for one in head) + "</tr>"
    for place, row in enumerate(rows):
        kind = f' class="{text(kinds[place])}"' if place < len(kinds) else ""
        yield f"<tr{kind}>" + "".join(f"<td>{text(cell, most)}</td>" for cell in row) + "</tr>"
    yield "</table></div>"


def facts(pairs: Iterable[tuple[str, str]], most: int = 2048) -> Iterator[str]:
    """A list of what is what, in plain text; pairs without a value are left out."""
    yield "<dl>"
    for name, value in pairs:
        if value:
            yield f"<dt>{text(name, most)}</dt><dd>{text(value, most)}</dd>"
    yield "</dl>"

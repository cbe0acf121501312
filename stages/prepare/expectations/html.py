"""The results as one HTML file that needs nothing else: no network, no script, no clock.

Light and dark, wide and narrow; the same bytes for the same table and outcomes.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path

from stages.prepare.expectations.column_profile import Overview, describe
from stages.prepare.expectations.long.facts import Facts
from stages.prepare.expectations.result import Outcome, share
from stages.prepare.expectations.sentences import sentence
from stages.prepare.table.table import Table

MAX_COLUMNS_SHOWN = 200
# In the order in which they are listed: mark and word.
_STATUSES = {"failed": ("✕", "not met"), "warning": ("!", "warning"), "passed": ("✓", "met")}

# Below the style that all pages share.
STYLE = Path(__file__).with_name("page.css")
_CSS = """
.more, .facts dt, small { color: var(--soft); }
ul { list-style: none; margin: 0; padding: 0; background: var(--card); border-radius: .5rem;
  border: 1px solid var(--line); }
li { display: grid; gap: .1rem .75rem; padding: .55rem 1rem; }
li + li { border-top: 1px solid var(--line); }
.rule { grid-template-columns: 1.4rem 1fr auto; }
.mark { width: 1.4rem; height: 1.4rem; border-radius: 50%; display: grid; place-items: center;
  font-size: .8rem; font-weight: 700; color: var(--card); background: var(--mark);
  margin-top: .1rem; }
.word { font-size: .85rem; color: var(--mark); white-space: nowrap; line-height: 1.75; }
.more { grid-column: 2 / -1; font-size: .9rem; }
.more code { display: inline-block; }
.note { margin: .5rem 1rem; font-size: .85rem; }
.column { grid-template-columns: minmax(9rem, 15rem) 1fr 10rem; gap: .25rem 1.25rem;
  align-items: center; }
small { display: block; font-size: .85rem; }
.gaps { color: var(--warning); }
.facts { display: flex; flex-wrap: wrap; gap: .1rem 1.25rem; margin: 0; font-size: .9rem; }
.facts div { display: flex; gap: .4rem; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; height: 2rem; fill: var(--bar); }
@media (max-width: 40rem) { li { padding: .55rem .75rem; } .column { grid-template-columns: 1fr; }
  svg { max-width: 16rem; } }
"""


def render(
    table: Table,
    outcomes: list[Outcome],
    source: str,
    suite: str,
    facts: Mapping[str, Facts],
) -> str:
    """The page: the verdict, each expectation with what came of it, each column at a glance.

    `facts` holds the columns of a table that is not looked at whole.
    """
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(source)}: expectations</title>
<style>
{STYLE.read_text(encoding="utf-8")}{_CSS}</style>
<main>
<h1>{escape(source)}</h1>
<p class="soft">{table.height:,} rows × {len(table.columns):,} columns, held to {_code(suite)}</p>
{_verdict(outcomes)}
{_expectations(outcomes)}
{_overviews(table, facts)}
</main>
</html>
"""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _verdict(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return '<p class="verdict">No expectations: the suite is empty.</p>'
    count = {status: sum(o.status == status for o in outcomes) for status in _STATUSES}
    parts = [f"{count['failed']} critical not met"] if count["failed"] else []
    if count["warning"]:
        parts.append(f"{count['warning']} warning{'s' if count['warning'] > 1 else ''}")
    parts.append(f"{count['passed']} of {len(outcomes)} expectations met")
    worst = next(status for status in _STATUSES if count[status])
    return f'<p class="verdict {worst}">{", ".join(parts)}</p>'


def _expectations(outcomes: list[Outcome]) -> str:
    """A line or two for each, the worst first, else in the suite's order."""
    if not outcomes:
        return ""
    rank = list(_STATUSES)
    items = [_item(outcome) for outcome in sorted(outcomes, key=lambda o: rank.index(o.status))]
    lines = ["<h2>Expectations</h2>", "<ul>", *items, "</ul>"]
    if any(outcome.examples for outcome in outcomes):
        lines.append('<p class="soft note">Rows are counted from 0.</p>')
    return "\n".join(lines)


def _item(outcome: Outcome) -> str:
    rule = outcome.rule
    text = escape(rule.description) if rule.description else sentence(rule, _code, _code)
    lines = [escape(outcome.finding)] if outcome.finding else []
    if outcome.examples:
        lines.append("such as " + " ".join(_code(example) for example in outcome.examples))
    more = f'<div class="more">{"<br>".join(lines)}</div>' if lines else ""
    mark, word = _STATUSES[outcome.status]
    return (
        f'<li class="rule {outcome.status}"><span class="mark" aria-hidden="true">{mark}</span>'
        f'<span>{text}</span><span class="word">{word}</span>{more}</li>'
    )


def _overviews(table: Table, facts: Mapping[str, Facts]) -> str:
    shown = [
        facts[name].overview if name in facts else describe(table.column(name))
        for name in table.columns[:MAX_COLUMNS_SHOWN]
    ]
    items = "\n".join(_overview(overview, table.height) for overview in shown)
    rest = len(table.columns) - len(shown)
    note = f'\n<p class="soft">and {rest:,} more</p>' if rest else ""
    return f"<h2>Columns</h2>\n<ul>\n{items}\n</ul>{note}"


def _overview(overview: Overview, height: int) -> str:
    gaps = ""
    if overview.missing:
        percent = share(overview.missing, height)
        gaps = f', <span class="gaps">{overview.missing:,} missing ({percent})</span>'
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in overview.facts
    )
    return (
        f'<li class="column"><div><b>{escape(overview.name)}</b>'
        f"<small>{escape(overview.dtype)}{gaps}</small></div>"
        f'<dl class="facts">{facts}</dl>{_histogram(overview)}</li>'
    )


def _histogram(overview: Overview) -> str:
    """Bars of the same width, 100 high at the tallest; one that holds anything can be seen."""
    if not overview.bars:
        return ""
    width = 240 / len(overview.bars)
    rects = []
    for place, count in enumerate(overview.bars):
        if count:
            height = max(3.0, round(100 * count / max(overview.bars), 1))
            shape = f'width="{width - 1:g}" height="{height:g}"'
            rects.append(f'<rect x="{place * width:g}" y="{100 - height:g}" {shape}/>')
    return (
        '<svg viewBox="0 0 240 100" preserveAspectRatio="none" '
        f'role="img" aria-label="histogram of {escape(overview.name)}">{"".join(rects)}</svg>'
    )

"""`reprise show`: the last run as one page that works offline."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.common.atomic import write_output
from pipeline.report.page.page import escape, make_page
from pipeline.report.show import advice, metrics, origin, pictures
from pipeline.report.show.outputs import Run, read_run

# In their order: the anchor, the title, and what yields the HTML of it.
SECTIONS: tuple[tuple[str, str, Callable[[Run], Iterator[str]]], ...] = (
    ("metrics", "Metrics", metrics.metrics),
    ("training", "Training", pictures.training),
    ("confusion", "Confusion", pictures.confusion),
    ("classes", "Classes", pictures.classes),
    ("residuals", "Predictions and residuals", pictures.residuals),
    ("probabilities", "Probabilities", pictures.probabilities),
    ("slices", "Slices", pictures.slices),
    ("columns", "Columns", pictures.columns),
    ("mistakes", "Largest mistakes", origin.mistakes),
    ("card", "Model card", origin.card),
    ("advice", "What would help next", advice.advice),
    ("lineage", "What made it", origin.lineage),
)


def write_show(output: Path) -> Path:
    """Write the page of the last run to `output`, whole or not at all.

    Raises UserError when no stage has written metrics yet, and where it can't be written.
    """
    write_output(output, draw_run(read_run()))
    return output


def draw_run(run: Run) -> str:
    """The page of a run, with a link to each section; those without content are left out."""
    drawn = [(anchor, title, "".join(draw(run))) for anchor, title, draw in SECTIONS]
    there = [each for each in drawn if each[2]]
    links = " · ".join(f'<a href="#{a}">{escape(title)}</a>' for a, title, _ in there)
    body = [*metrics.head(run), f"<nav>{links}</nav>"]
    body += [f'<section id="{a}"><h2>{escape(t)}</h2>{html}</section>' for a, t, html in there]
    return make_page("The last run", body)

"""The pictures of the run: training, confusion or residuals, calibration, slices, columns."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.metrics.metrics import format_value
from pipeline.report.page.chart import Series, draw_chart
from pipeline.report.page.confusion import MAX_CLASSES, draw_confusion
from pipeline.report.page.markup import Code
from pipeline.report.page.page import paragraph, table
from pipeline.report.page.strips import Strip, draw_bars, draw_forest
from pipeline.report.show.metrics import interval_text
from pipeline.report.show.outputs import Rows, Run, number, points

MAX_STRIPS = 40
OF_COLUMNS = {
    "importance": "How much worse the first metric is with a column shuffled; the line is one "
    "deviation over the shuffles to either side.",
    "attribution": "How far each column moves a prediction on average.",
}
MAX_CONFUSED = 12
PLOTS = "evaluate/plots/"
TRAIN = "train/plots/"

Draw = Callable[[tuple[str, str], Sequence[Strip]], str]


def training(run: Run) -> Iterator[str]:
    """Yield the curves of loss and metric, and of a search its best value."""
    loss, metric = (run.tables.get(f"{TRAIN}{name}.csv", []) for name in ("loss", "metric"))
    of_train = run.metrics.get("train", {})
    kept = of_train.get("kept_epoch")
    mark = None if kept is None else (float(kept), f"kept: epoch {kept}")
    names = [n for n in of_train if n.startswith("validation_") and n != "validation_loss"]
    name = names[0].removeprefix("validation_") if names else "metric"
    charts = [
        draw_chart(
            "Loss",
            "epoch",
            "loss",
            [Series(each, points(loss, "epoch", each)) for each in ("train", "validation")],
            mark,
            counts=True,
        ),
        draw_chart(
            f"Validation {name}",
            "epoch",
            name,
            [Series("validation", points(metric, "epoch", "validation"))],
            mark,
            counts=True,
        ),
        draw_chart(
            "Search",
            "trial",
            "best value so far",
            [Series("best", points(run.tables.get("tune/plots/history.csv", []), "trial", "best"))],
            counts=True,
        ),
    ]
    yield from _side_by_side(charts)


def confusion(run: Run) -> Iterator[str]:
    """Yield the confusion of classes; of many, the pairs that are confused most."""
    rows = run.tables.get(f"{PLOTS}confusion.csv", [])
    pairs = [(row["actual"], row["predicted"]) for row in rows]
    if drawn := draw_confusion(pairs):
        yield paragraph(
            "Test rows by class: actual down, predicted across. The stronger the shade, the "
            "more of the actual class; what is right has a frame.",
            "soft",
        )
        yield drawn
    elif pairs:
        wrong = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(MAX_CONFUSED)
        yield paragraph(f"Of more than {MAX_CLASSES} classes, those that are confused most.")
        cells = [(Code(actual), Code(said), str(n)) for (actual, said), n in wrong]
        yield table(("actual", "predicted", "rows"), cells)


def residuals(run: Run) -> Iterator[str]:
    """Yield predicted against actual values, and the rest against predicted ones."""
    exact, rest = (run.tables.get(f"{PLOTS}{name}.csv", []) for name in ("predicted", "residuals"))
    pairs = points(exact, "actual", "predicted")
    ends = [min(map(min, pairs)), max(map(max, pairs))] if pairs else []
    of_rest = points(rest, "predicted", "residual")
    across = [min(of_rest)[0], max(of_rest)[0]] if of_rest else []
    yield from _side_by_side(
        [
            draw_chart(
                "Predicted and actual",
                "actual",
                "predicted",
                [
                    Series("test rows", pairs, dots=True),
                    Series("as it would be without an error", [(end, end) for end in ends]),
                ],
            ),
            draw_chart(
                "Residuals",
                "predicted",
                "actual less predicted",
                [
                    Series("test rows", of_rest, dots=True),
                    Series("no error", [(end, 0.0) for end in across]),
                ],
            ),
        ]
    )


def probabilities(run: Run) -> Iterator[str]:
    """Yield calibration, ROC, and precision by recall."""
    by_name = {
        name: run.tables.get(f"{PLOTS}{name}.csv", [])
        for name in ("calibration", "calibration_before", "roc", "precision_recall")
    }
    of_bins = ("predicted_probability", "observed_share")
    fair = [(0.0, 0.0), (1.0, 1.0)]
    calibrated = points(by_name["calibration"], *of_bins)
    before = points(by_name["calibration_before"], *of_bins)
    names = [Series("as predicted", calibrated), Series("before the temperature", before)]
    curve = points(by_name["roc"], "false_positive_rate", "true_positive_rate")
    yield from _side_by_side(
        [
            draw_chart(
                "Calibration of the likeliest class",
                "predicted probability",
                "share that is right",
                [*names, Series("fair", fair if calibrated else [])],
            ),
            draw_chart(
                "ROC",
                "false positive rate",
                "true positive rate",
                [Series("model", curve), Series("chance", fair if curve else [])],
            ),
            draw_chart(
                "Precision by recall",
                "recall",
                "precision",
                [Series("model", points(by_name["precision_recall"], "recall", "precision"))],
            ),
        ]
    )


def classes(run: Run) -> Iterator[str]:
    """Yield the recall of each class with its interval; precision in its note."""
    strips = []
    for row in run.tables.get("evaluate/classes.csv", []):
        recall, precision = number(row["recall"]), number(row["precision"])
        if recall is None:
            continue
        said = "never predicted" if precision is None else f"precision {precision:.3f}"
        ends = number(row["recall_low"]), number(row["recall_high"])
        note = f"{_rows(row)}, {said}"
        written = format_value(recall), _interval(*ends)
        strips.append(Strip(Code(row["class"]), recall, *ends, *written, note))
    yield from _limited(strips, "data/evaluate/classes.csv", draw_forest, ("class", "recall"))


def slices(run: Run) -> Iterator[str]:
    """Yield the first metric on each slice, beside its value on all test rows."""
    rows = run.tables.get("evaluate/slices.csv", [])
    if not rows:
        return
    name = list(rows[0])[4]
    whole = run.metrics.get("evaluate", {}).get(name)
    strips = []
    for row in rows:
        value, ends = number(row[name]), (number(row["low"]), number(row["high"]))
        if value is None:
            continue
        small = row["small"] == "yes"
        note = _rows(row) + (", too few to judge" if small else "")
        title = (Code(row["column"]), f": {row['slice']}")
        written = format_value(value), _interval(*ends)
        strips.append(Strip(title, value, *ends, *written, note, is_small=small))
    if whole is not None:
        said = f"{name} of each slice; the upright line is all test rows, {format_value(whole)}."
        yield paragraph(f"{said} A hollow dot has fewer than 30 rows.", "soft")
    line = whole if isinstance(whole, float) else None
    worst = run.metrics.get("evaluate", {}).get(f"worst_slice_{name}")
    less = line is not None and worst is not None and worst > line
    yield draw_forest(("slice", name), _worst(strips, less_is_better=less), line)
    yield from _rest(strips, "data/evaluate/slices.csv", "The worst of those with enough rows. ")


def columns(run: Run) -> Iterator[str]:
    """Yield how much worse the model is without each column, and how far each moves it."""
    for name, said in OF_COLUMNS.items():
        rows = run.tables.get(f"{PLOTS}{name}.csv", [])
        strips = _bars(rows, name)
        if strips:
            yield f"<h3>{name.capitalize()}</h3>"
            yield paragraph(said, "soft")
            yield from _limited(strips, f"data/{PLOTS}{name}.csv", draw_bars, ("column", name))


def _bars(rows: Rows, name: str) -> list[Strip]:
    strips = []
    for row in rows:
        value, deviation = number(row[name]), number(row.get("deviation"))
        if value is None:
            continue
        low, high = (None if deviation is None else value + s * deviation for s in (-1, 1))
        spread = "" if deviation is None else f" ± {deviation:.2g}"
        written = format_value(value), spread.strip()
        strips.append(Strip(Code(row["column"]), value, low, high, *written))
    return strips


def _interval(low: float | None, high: float | None) -> str:
    return interval_text({"low": low, "high": high})


def _limited(strips: list[Strip], file: str, draw: Draw, heads: tuple[str, str]) -> Iterator[str]:
    if strips:
        yield draw(heads, strips[:MAX_STRIPS])
    yield from _rest(strips, file)


def _rest(strips: list[Strip], file: str, which: str = "") -> Iterator[str]:
    if len(strips) > MAX_STRIPS:
        yield paragraph(f"{which}{len(strips) - MAX_STRIPS} more are in {file}.", "soft")


def _worst(strips: list[Strip], *, less_is_better: bool) -> list[Strip]:
    """Choose as many as a page has room for, the worst of enough rows first, in their order."""
    sign = -1 if less_is_better else 1
    ranked = sorted(strips, key=lambda strip: (strip.is_small, sign * strip.value))
    chosen = {id(strip) for strip in ranked[:MAX_STRIPS]}
    return [strip for strip in strips if id(strip) in chosen]


def _rows(row: Mapping[str, str]) -> str:
    """The number of a row's rows, with the word."""
    num = int(row["rows"])
    return "1 row" if num == 1 else f"{num:,} rows"


def _side_by_side(charts: list[str]) -> Iterator[str]:
    if any(charts):
        yield f'<div class="pictures">{"".join(charts)}</div>'

"""The known limits of a model, as sentences for its card; each follows from a number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from stages.common.counts import either
from stages.common.yamlfile import yaml_text
from stages.evaluate.measure.bootstrap import Interval
from stages.evaluate.outputs.markdown import code, plain
from stages.evaluate.outputs.slices import SMALL_ROWS, Slice
from stages.features.schema import CODES, WORDS, Class, Schema

MAX_NAMED = 12


def find_limits(
    schema: Schema,
    counts: Mapping[str, Sequence[int]],
    intervals: Mapping[str, Interval],
    slices: Sequence[Slice],
    questions: Sequence[str],
) -> Iterator[str]:
    """One limit after the other; `counts` are the rows of each class by split.

    `questions` are questions that the metrics raise.
    """
    yield "These numbers hold for rows like the test rows: of the same source, at the same time."
    for question in questions:
        # Word by word: a name of a column stands in it, which may hold anything.
        yield " ".join(map(plain, question.split()))
    rare = _rare(schema.target.classes or (), counts)
    if rare:
        yield (
            f"Of these classes fewer than {SMALL_ROWS} rows were tested, so how well they are told "
            f"apart is hardly known: {name_all(rare)}."
        )
    if unknown := [name for name, interval in intervals.items() if interval.low is None]:
        yield f"Between what these metrics may lie is not known: {name_all(unknown)}."
    if small := [f"{s.column or repr('')} {s.label}" for s in slices if s.small]:
        has, judged = either(len(small), "has", "have"), either(len(small), "is", "are")
        yield (
            f"{len(small)} of {len(slices)} slices {has} fewer than {SMALL_ROWS} rows and {judged} "
            f"not judged: {name_all(small)}."
        )
    if any(not s.small for s in slices):
        yield "The worst of many slices is in part bad luck."
    columns = [f for f in schema.features if not f.is_array]
    whole = [f.name for f in columns if not f.missing and f.kind not in (*CODES, *WORDS)]
    if whole:
        yield (
            "Training saw no gap in these columns; one is taken as the mean, or as false: "
            f"{name_all(whole)}."
        )
    if named := [f.name for f in columns if f.kind in CODES and f.missing]:
        yield f"Values that training did not see are all one to the model in {name_all(named)}."
    if named := [f.name for f in columns if f.kind in CODES and not f.missing]:
        yield (
            "Values that training did not see, and gaps, are all one to the model in "
            f"{name_all(named)}."
        )


def _rare(classes: Sequence[Class], counts: Mapping[str, Sequence[int]]) -> list[str]:
    tested = zip(classes, counts.get("test", ()), strict=bool(classes))
    return [f"{yaml_text(name)} ({rows} rows)" for name, rows in tested if rows < SMALL_ROWS]


def name_all(names: Iterable[object]) -> str:
    """The names as code, at most 12 of them, and how many more there are."""
    shown = [code(str(name) or repr("")) for name in names]
    more = f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else ""
    return ", ".join(shown[:MAX_NAMED]) + more

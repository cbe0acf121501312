"""The one comment on a pull request or merge request: its text, and that there is one of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.comment.rest import NoAnswerError
from pipeline.comment.sanitise import MAX_COMMENT_BYTES, cut, make_safe, one_line

MARKER = "<!-- reprise report -->"
GOOD_END = "success"
NUM_TRIES = 3
NUM_STEPS_SHOWN = 10


@dataclass(frozen=True)
class Found:
    """A report, or why there is none; and the address of the artifact that it came in."""

    text: str | None
    why_not: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Source:
    """The run that a report is of, as the host knows it: its address, commit and end.

    `failed` names what failed in it; `is_fork` says whose code it was.
    """

    url: str
    sha: str
    end: str
    failed: Sequence[str]
    is_fork: bool


def compose(found: Found, source: Source) -> str:
    """The comment: the run's end, if not good; the report, made safe and to fit; where it is from.

    What the host knows stands around what the pull request's own code has written.
    """
    head = [MARKER]
    if source.end != GOOD_END:
        steps = ", ".join(make_safe(one_line(name, 80)) for name in source.failed[:NUM_STEPS_SHOWN])
        where = f" at: {steps}" if steps else ""
        head.append(f"**The run ended as {one_line(source.end)}**{where} ([log]({source.url})).")
    whose = "the fork's own code" if source.is_fork else "this branch's code"
    origin = f"Made by {whose} at {source.sha[:10]} in [this run]({source.url})"
    if found.url is not None:
        origin += f"; the page with curves, `report.html`, is in [its artifact]({found.url})"
    foot = ["---", f"{origin}."]
    if found.text is None:
        return "\n\n".join([*head, found.why_not or "", *foot])
    text = make_safe(found.text)
    note = f"*The report is longer: all of it is in [the artifact]({found.url}).*"
    room = MAX_COMMENT_BYTES - len("\n\n".join([*head, note, *foot]).encode()) - 4
    shown = cut(text, room)
    return "\n\n".join([*head, *([shown] if shown else []), *([note] * (shown != text)), *foot])


def put_comment(
    find: Callable[[], tuple[int, str] | None],
    create: Callable[[str], str],
    update: Callable[[int, str], str],
    body: str,
) -> str:
    """Make the one comment hold `body`; what was done, as a line.

    `find` gives the id and the text of the comment that is there. When no answer to the creation
    came it looks again first, so that there are never two. Raises NoAnswerError when the last
    try has none either, and what the three raise.
    """
    for attempt in range(NUM_TRIES):
        found = find()
        if found is not None:
            comment, before = found
            return "unchanged" if before == body else f"updated {update(comment, body)}"
        try:
            return f"created {create(body)}"
        except NoAnswerError:
            if attempt == NUM_TRIES - 1:
                raise
            time.sleep(2.0**attempt)
    raise AssertionError

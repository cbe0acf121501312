"""`docs/troubleshooting.md`, written from the table of causes: `reprise doctor --write-page`."""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.doctor.cause import Cause, read_chapters

PAGE = Path("docs/troubleshooting.md")
HEAD = """<!-- Written by `reprise doctor --write-page`: edit pipeline/doctor/causes instead. -->

# When it goes wrong

For somebody who meets an error for the first time. `reprise doctor` does the reading for you: it \
looks at the machine, the set-up and the last run, says what is wrong and why it matters, and \
names the command that mends it. Where a training has failed or learns nothing, it measures what \
it needs to know: how many rows fit, at which rate the loss falls, which layer is dead.

```
reprise doctor               # the machine, the set-up, the last run; 1 when something will fail
reprise doctor --fix         # and does what harms nothing
reprise doctor --training    # measures the training even where nothing stands out
reprise doctor --log run.txt # what a run from elsewhere has said: a cluster's, a CI's
reprise doctor --network     # asks remotes and servers that are elsewhere, too
```

Read an error from its end: the last line says what happened, the lines above it where. A stage \
that stops puts its last outputs back, so nothing is lost by trying again.
"""
RECORDED = "It can't be provoked on every machine: it is recognised by its message alone."


def make_page() -> str:
    """The page: a list of the causes, then each with its signs, its meaning and what to do."""
    chapters = read_chapters()
    parts = [HEAD]
    for chapter in chapters:
        names = " · ".join(f"[{cause.name}](#{anchor_of(cause)})" for cause in chapter.causes)
        parts.append(f"\n**{chapter.title}.** {names}\n")
    for chapter in chapters:
        parts.append(f"\n## {chapter.title}\n")
        for cause in chapter.causes:
            parts.append("\n" + "\n".join(_lines(cause)) + "\n")
    return "".join(parts)


def _lines(cause: Cause) -> Iterator[str]:
    yield f"### {heading_of(cause)}"
    yield ""
    if cause.patterns:
        yield from ("```text", *cause.signs, "```")
    else:
        yield "Seen: " + "; ".join(cause.signs) + "."
    yield ""
    yield cause.means
    yield ""
    yield from (f"- {remedy}" for remedy in cause.remedies)
    if cause.recorded:
        yield from ("", RECORDED)


def heading_of(cause: Cause) -> str:
    """The cause's heading."""
    return cause.name[0].upper() + cause.name[1:]


def anchor_of(cause: Cause) -> str:
    """The anchor of its heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", cause.name.lower()).replace(" ", "-")


def link_of(cause: Cause) -> str:
    """The place of the cause on the page."""
    return f"{PAGE}#{anchor_of(cause)}"


def write_page() -> bool:
    """Write the page unless it is current; tell whether it was written."""
    text = make_page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return False
    temporary = PAGE.with_suffix(".writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(PAGE)
    return True

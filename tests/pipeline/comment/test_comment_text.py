"""The text of a comment: cut, safe, and whole."""

import re

import pytest
from markdown_it import MarkdownIt

from pipeline.comment.comment import MARKER
from pipeline.comment.sanitise import BREAK, MAX_COMMENT_BYTES, cut, make_safe, one_line
from tests.pipeline.comment.conftest import Post
from tests.pipeline.comment.hosts import archive, make_host


def test_a_long_report_is_cut_and_says_where_the_rest_is(post: Post) -> None:
    host = make_host()
    rows = "\n".join(f"| row {n} | some ✅ text |" for n in range(6000))
    folded = (
        f"<details><summary>Rows (6000)</summary>\n\n| a | b |\n| --- | --- |\n{rows}\n\n</details>"
    )
    host.content = archive(
        report_md=f"### Better\n\n{folded}\n\n**More**\n\n| x |\n| --- |\n| 1 |\n"
    )
    assert post(host) == 0
    (text,) = host.texts()
    assert 60_000 < len(text.encode()) <= MAX_COMMENT_BYTES
    assert text.count("<details>") == text.count("</details>") == 1
    table, rest_of_it = text.split("\n\n</details>")
    assert table.endswith("| some ✅ text |")
    assert "The report is longer" in rest_of_it
    assert "/artifacts/90)" in rest_of_it
    assert "More" not in text


def test_a_cut_leaves_no_title_alone_and_nothing_open() -> None:
    text = make_safe(
        "### Better\n\n**One**\n\n| a |\n| --- |\n| 1 |\n\n"
        "<details><summary>Two</summary>\n\nlong long long\n\n</details>\n\nend"
    )
    for limit in range(len(text.encode()) + 1):
        part = cut(text, limit)
        assert len(part.encode()) <= limit
        assert part.count("<details>") == part.count("</details>")
        last = part.split("\n\n")[-1]
        assert last not in ("**One**", "<details><summary>Two</summary>")
        assert not last.startswith("| a |") or last == "| a |\n| --- |\n| 1 |"
    assert cut(text, len(text.encode())) == text


@pytest.mark.parametrize(
    "evil",
    [
        "ping @ann and @team/all",
        "ping &#64;ann or &commat;ann",
        "see #12, team/model#12, GH-12, gh-12 and !12",
        "https://evil.example HTTP://evil.example www.evil.example",
        "[log in](https://evil.example) [log in][x] [log in]: https://evil.example",
        "![x](https://evil.example/pixel.png)",
        "<img src=https://evil.example> <a href='//evil.example'>x</a> <https://evil.example>",
        f"{MARKER} <!-- hidden",
        "<details open>x <summary>y",
        "</details> x </details>",
        "/merge",
        "- > /close",
        "```mermaid\ngraph TD\n```",
        "~~~~math\nx\n~~~~",
        "$\\color{red}x$",
        "a\u202eb\u200bc\u0000d\x1b[31me\u2066f",
        "z" + "\u0336" * 50,
        "line\u2028line",
    ],
)
def test_what_a_fork_writes_stays_text(evil: str) -> None:
    safe = make_safe(f"### Title\n\n{evil}\n\n| a |\n| --- |\n| {evil} |\n\nend")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(safe)
    tokens += [child for token in tokens for child in token.children or ()]
    # What a reader's page is made of: of HTML nothing but sections that open and close.
    kinds = {token.type for token in tokens}
    assert not kinds & {"link_open", "image", "fence", "html_inline"}, safe
    html = [line for t in tokens if t.type == "html_block" for line in t.content.split("\n")]
    assert {line for line in html if "<" in line.replace(f"<{BREAK}", "")} <= {"</details>"}
    assert safe.count("<details>") == safe.count("</details>")
    # What the hosts look for in the text of the page, entities resolved.
    shown = "\n".join(token.content for token in tokens if token.type == "text")
    assert shown.startswith("Title")
    for pattern in (r"@\w", r"#\d", r"!\d", r"://", r"(?i)www\.|gh-\d", r"\$"):
        assert re.search(pattern, shown) is None, shown
    assert re.search(r"(?m)^[^\w\u200b]*/\w", shown) is None
    assert re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]|\u0336{3}", safe) is None


def test_folded_sections_are_balanced() -> None:
    assert make_safe("</details>\n\na") == "a"
    assert make_safe("<details><summary>a @b</summary>\n\nc").endswith("\n\n</details>")
    assert f"a @{BREAK}b</summary>" in make_safe("<details><summary>a @b</summary>\n\nc")


def test_a_line_for_a_log_is_one_line() -> None:
    assert one_line("a\n::set-output x\x1b[1m") == "a ::set-output x[1m"
    assert len(one_line("x" * 1000)) == 200

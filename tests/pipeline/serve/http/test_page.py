"""Names that are code are text in the page, its descriptions and a terminal."""

import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from pipeline.serve.command import _introduction, _say
from pipeline.serve.service import Service
from tests.support.serving import NAMES, TITLE, ask


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_name_that_is_a_script_is_text_in_the_page(service: Service) -> None:
    answer = ask(service, "GET", "/docs")
    page = Elements(answer.text)
    assert TITLE in page.text
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert [list(each) for each in scripts] == [["src"], ["src"]]
    assert not [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    for each in scripts:
        asset = ask(service, "GET", f"/{each['src']}")
        assert asset.status_code == 200
        assert "javascript" in asset.headers["content-type"]
    parts = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert (parts["default-src"], parts["script-src"], parts["connect-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert parts["frame-ancestors"] == "'none'"
    # Nothing that the policy allows is elsewhere.
    assert not re.search(r"https?:|\*", answer.headers["content-security-policy"])


def test_names_in_descriptions_are_text_in_their_markdown(service: Service) -> None:
    described = ask(service, "GET", "/openapi.json").json()
    operation = described["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    columns = content["schema"]["properties"]["rows"]["items"]["properties"]
    text = columns["\x1b]0;x\x07"]["description"]
    page = Elements(MarkdownIt("commonmark", {"html": True}).render(text))
    assert {tag for tag, _ in page.elements} == {"p"}
    assert page.text.strip() == "in training: " + " ".join(", ".join(NAMES).split())


def test_nothing_but_the_page_is_taken_for_one(service: Service) -> None:
    script = "/<script>alert(1)</script>"
    for method, path in (
        *(("GET", path) for path in ("/openapi.json", "/example", "/metrics", "/v2", script)),
        *(("GET", f"/docs/assets{script}"), ("POST", "/predict"), ("GET", f"/v2/models{script}")),
    ):
        answer = ask(service, method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].split(";")[0] in ("application/json", "text/plain")


def test_what_a_terminal_obeys_is_written_out(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(_introduction(service, "http://localhost:1"))
    said = capsys.readouterr().out
    assert "\\x1b]0;x\\x07" in said
    assert not [c for c in said if not c.isprintable() and c != "\n"]

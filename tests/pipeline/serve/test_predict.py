"""Rows by name, and what is refused of them."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.service import Service
from stages.model.predictor import load_predictor
from tests.conftest import Project
from tests.support.inferred import TABLE
from tests.support.serving import ROWS, Sleepy, ask, client, tensors, with_session


def test_rows_by_name_give_what_the_batch_gives(project: Project, service: Service) -> None:
    expected = load_predictor(project.path / "data", coverage=0.9).predict(TABLE)
    found = ask(service, "POST", "/predict", {"rows": ROWS}).json()
    assert found["model"] == service.bundle.version
    assert [each["id"] for each in found["predictions"]] == expected["id"].to_list()
    assert [each["prediction"] for each in found["predictions"]] == expected["prediction"].to_list()
    for name in ("ill", "well"):
        probabilities = [each["probabilities"][name] for each in found["predictions"]]
        np.testing.assert_allclose(probabilities, expected[f"probability_{name}"], atol=1e-6)
    sets = [each["set"] for each in found["predictions"]]
    inside = {name: expected[f"in_set_{name}"].to_list() for name in ("ill", "well")}
    assert sets == [[name for name in inside if inside[name][i]] for i in range(len(sets))]
    # The key may be left out, and other columns may be there.
    nameless = {key: value for key, value in ROWS[0].items() if key != "id"} | {"note": "new"}
    (answer,) = ask(service, "POST", "/predict", {"rows": [nameless]}).json()["predictions"]
    assert list(answer) == ["prediction", "probabilities", "set"]


def test_a_wrong_row_names_row_column_and_what_is_allowed(service: Service) -> None:
    rows = [ROWS[0], {**ROWS[1], "smoker": "maybe"}, {"siz": 1, **ROWS[2]}]
    del rows[2]["size"]
    answer = ask(service, "POST", "/predict", {"rows": rows})
    assert answer.status_code == 422
    first, second = answer.json()["details"]
    assert first == {
        "row": 1,
        "column": "smoker",
        "message": "'maybe' is not true, false or null",
        "suggestion": None,
    }
    assert (second["row"], second["column"], second["suggestion"]) == (2, "size", "size")
    assert "'siz' is no column of this model" in second["message"]
    assert answer.json()["error"].startswith("row 1, column 'smoker': 'maybe' is not")


def deep_rows(row: str) -> bytes:
    """A body with one row that holds a thousand lists in lists, as deep as the parser goes."""
    return f'{{"rows": [{row}]}}'.replace("%s", "[" * 1000 + "]" * 1000).encode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"a,b\n1,2\n", 400, "those of a file by `reprise predict FILE`"),
        (b"{", 400, "no JSON"),
        (b"\xff\xd8\xff\xe0", 400, "curl -F COLUMN=@FILE"),
        (b"[" * 100_000, 400, "no JSON"),
        (b'{"NaN": ' * 100_000, 400, "no JSON"),
        (b'{"rows": [{"town": "\\ud800", "size": NaN}]}', 400, "no JSON"),
        ({"rows": [{}] * 4000}, 422, "row 0, column 'size': it is missing.*many more"),
        ([1], 422, '{"rows"'),
        ({"rows": {}}, 422, '{"rows"'),
        ({"rows": []}, 422, "at least one"),
        ({"rows": [[1]]}, 422, "row 0.*is not a row"),
        (deep_rows("[%s]"), 422, r"row 0, column '': \[\[\[\[...\]\]\]\] is not a row"),
        (deep_rows('{"size": %s}'), 422, r"column 'size': \[\[\[\[...\]\]\]\] is not a number"),
        (deep_rows('{"size": 99999999999999999999, "a": %s}'), 400, "nested too deeply"),
        (b'{"rows": [{"size": 1e400, "town": "NaN"}]}', 400, "infinity"),
        (b'{"rows": [{"size": 1e400, "town": NaN}]}', 400, "no JSON"),
        ({"rows": [{**ROWS[0], "id": 2**64}]}, 422, "column 'id': 18446744073709551616 is not a t"),
        ({"rows": [{**ROWS[0], "id": [1]}]}, 422, r"row 0, column 'id': \[1\] is not a text"),
        ({"rows": ROWS * 40}, 413, "4800 rows are more than the 4096"),
    ],
)
def test_what_is_no_table_is_refused(
    service: Service, body: object, status: int, said: str
) -> None:
    answer = ask(service, "POST", "/predict", body)
    assert answer.status_code == status
    assert re.search(said, answer.json()["error"])


def test_a_body_too_long_is_refused_before_it_is_read(service: Service, bundle: Bundle) -> None:
    small = Service(replace(service.settings, max_body_bytes=1000), bundle)
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b" " * 400

    # With Content-Length, and without it.
    for content in (b" " * 2000, chunks()):

        async def one(content: object = content) -> httpx.Response:
            async with client(small) as http:
                return await http.post("/predict", content=content)  # type: ignore[arg-type]

        answer = asyncio.run(one())
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert "longer than 1000 bytes" in answer.json()["error"]
    assert read <= 4
    compressed = ask(service, "POST", "/predict", b"x", headers={"Content-Encoding": "gzip"})
    assert compressed.status_code == 415


def test_a_gap_and_a_number_are_the_same_category_on_both_routes(
    service: Service, bundle: Bundle
) -> None:
    town = next(each for each in bundle.signature.inputs if each.column == "town")
    odd = bundle.signature.model_copy(
        update={
            "inputs": [
                each.model_copy(update={"categories": ["", "0.1", "18446744073709551617"]})
                if each is town
                else each
                for each in bundle.signature.inputs
            ]
        }
    )
    seen: list[list[str]] = []

    class Watched(Sleepy):
        def run(self, names: None, feeds: dict[str, np.ndarray]) -> Any:
            seen.append(feeds[town.name].tolist())
            return self.session.run(names, feeds)

    watched = with_session(bundle, Watched(bundle.session))
    service.take(replace(watched, signature=odd, encode=make_encoder(odd)))
    given = [None, "", 0.1, 2**64 + 1]
    body = {"rows": [{**row, "town": value} for row, value in zip(ROWS, given, strict=False)]}
    assert ask(service, "POST", "/predict", body).status_code == 200
    assert seen.pop() == ["\0", "\0", "0.1", "18446744073709551617"]
    for datatype, data in (
        ("BYTES", [None, "", "0.1", str(2**64 + 1)]),
        ("FP32", [None, None, 0.1, 0.1]),
        ("INT64", [1, 2, 3, 2**63 - 1]),
    ):
        inputs = tensors(ROWS[:4])
        inputs[1] |= {"datatype": datatype, "data": data}
        answer = ask(service, "POST", "/v2/models/reprise/infer", {"inputs": inputs})
        assert answer.status_code == 200, answer.text
    assert seen == [
        ["\0", "\0", "0.1", "18446744073709551617"],
        ["\0", "\0", "0.1", "0.1"],
        ["1", "2", "3", str(2**63 - 1)],
    ]

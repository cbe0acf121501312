"""`reprise serve`: its routes, limits, token, queue and reloads, in this process and in its own."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from pipeline.serve import service as serving_now
from pipeline.serve.app import make_app
from pipeline.serve.batching import Batcher
from pipeline.serve.bundle import FILES, Bundle, load_bundle
from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.codec.signature import example_row
from pipeline.serve.codec.tensors import from_bytes, to_bytes
from pipeline.serve.command import TOKEN, _say, read_token
from pipeline.serve.http.guard import check_token
from pipeline.serve.metrics import route_of
from pipeline.serve.service import Service, Settings
from stages.common.errors import UserError
from stages.model.predictor import load_predictor
from tests.conftest import ROOT, Project, project_environment
from tests.support.samples import mixed_table, run_stages, small_project

IMAGES = np.random.default_rng(3).integers(0, 17, (120, 2, 3), dtype=np.uint8)
TABLE = mixed_table().with_columns(picture=pl.Series(IMAGES, dtype=pl.Array(pl.UInt8, (2, 3))))
ROWS = [json.loads(json.dumps(row)) for row in TABLE.drop("y").to_dicts()]
SECRET = "0123456789abcdef"
ROAD = ("prepare", "build", "tune", "train", "infer")
SECONDS = 60


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = small_project(tmp_path_factory.mktemp("serve") / "p", TABLE, {"prepare.key": "id"})
    run_stages(made, *ROAD)
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of other columns: a regression of `size`."""
    table = TABLE.select("town", "smoker", y="size").drop_nulls("y")
    changes = {"prepare.key": None, "train.loss": {"name": "MSELoss"}}
    made = small_project(tmp_path_factory.mktemp("serve") / "other", table, changes)
    run_stages(made, *ROAD)
    return made.path / "data/infer"


@pytest.fixture(scope="module")
def bundle(project: Project) -> Bundle:
    return load_bundle(project.path / "data/infer")


@pytest.fixture
def service(project: Project, bundle: Bundle) -> Service:
    return Service(Settings(project.path / "data/infer"), bundle)


def ask(
    service: Service, method: str, path: str, body: object = None, **options: Any
) -> httpx.Response:
    """The answer of the application to one request."""

    async def one() -> httpx.Response:
        async with client(service) as http:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            return await http.request(method, path, content=content, **options)

    return asyncio.run(one())


@contextlib.asynccontextmanager
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(service, print))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as the protocol's inputs."""
    data = {name: [row[name] for row in rows] for name in ("size", "town", "smoker", "picture")}
    data["smoker"] = [None if value is None else float(value) for value in data["smoker"]]
    kinds = {"size": "FP64", "town": "BYTES", "smoker": "FP64", "picture": "FP32"}
    return [
        {
            "name": name,
            "datatype": kinds[name],
            "shape": [len(rows), *([2, 3] if name == "picture" else [])],
            "data": values,
        }
        for name, values in data.items()
    ]


def test_rows_by_name_give_what_the_batch_gives(project: Project, service: Service) -> None:
    expected = load_predictor(project.path / "data").predict(TABLE)
    found = ask(service, "POST", "/predict", {"rows": ROWS}).json()
    assert found["model"] == service.bundle.version
    assert [each["id"] for each in found["predictions"]] == expected["id"].to_list()
    assert [each["prediction"] for each in found["predictions"]] == expected["prediction"].to_list()
    for name in ("ill", "well"):
        probabilities = [each["probabilities"][name] for each in found["predictions"]]
        np.testing.assert_allclose(probabilities, expected[f"probability_{name}"], atol=1e-6)
    # The key may be left out, and other columns may be there.
    nameless = {key: value for key, value in ROWS[0].items() if key != "id"} | {"note": "new"}
    (answer,) = ask(service, "POST", "/predict", {"rows": [nameless]}).json()["predictions"]
    assert list(answer) == ["prediction", "probabilities"]


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
        (b"{", 400, "no JSON"),
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


def test_the_protocol_describes_the_model(service: Service) -> None:
    assert ask(service, "GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert ask(service, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(service, "GET", "/v2/health/ready").json() == {"ready": True}
    model = ask(service, "GET", "/v2/models/reprise").json()
    assert model["versions"] == [service.bundle.version]
    assert model["inputs"][3] == {"name": "picture", "datatype": "FP32", "shape": [-1, 2, 3]}
    assert model["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    version = f"/v2/models/reprise/versions/{service.bundle.version}"
    assert ask(service, "GET", version).json() == model
    assert ask(service, "GET", f"{version}/ready").json() == {"name": "reprise", "ready": True}
    for path in ("/v2/models/x", "/v2/models/x/ready", "/v2/models/reprise/versions/1", "/v3"):
        answer = ask(service, "GET", path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    assert ask(service, "GET", "/predict").status_code == 405
    service.is_stopping = lambda: True
    for path in ("/v2/health/ready", "/v2/models/reprise/ready"):
        answer = ask(service, "GET", path)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert ask(service, "GET", "/v2/health/live").status_code == 200


def test_the_protocol_infers_what_the_rows_give(service: Service) -> None:
    rows = ask(service, "POST", "/predict", {"rows": ROWS}).json()["predictions"]
    body = {"id": "7", "inputs": tensors(ROWS)}
    version = f"/v2/models/reprise/versions/{service.bundle.version}"
    for path in ("/v2/models/reprise/infer", f"{version}/infer"):
        found = ask(service, "POST", path, body).json()
        assert (found["id"], found["model_version"]) == ("7", service.bundle.version)
        names, probabilities = found["outputs"]
        assert (names["datatype"], names["shape"]) == ("BYTES", [len(ROWS)])
        assert names["data"] == [row["prediction"] for row in rows]
        expected = [chance for row in rows for chance in row["probabilities"].values()]
        np.testing.assert_allclose(probabilities["data"], expected, atol=1e-9)
    body["outputs"] = [{"name": "probabilities"}]
    (only,) = ask(service, "POST", path, body).json()["outputs"]
    assert only["name"] == "probabilities"
    # A gap as Python's own JSON has it, a column as one of a table, whole numbers.
    odd = tensors(ROWS[:1])
    odd[0] |= {"data": [float("nan")], "shape": [1, 1]}
    odd[3] |= {"datatype": "INT64", "data": np.array(ROWS[0]["picture"]).ravel().tolist()}
    gap = tensors([{**ROWS[0], "size": None}])
    first, second = (
        ask(service, "POST", path, {"inputs": inputs}).json()["outputs"] for inputs in (odd, gap)
    )
    assert first == second


def test_the_binary_extension_goes_both_ways(service: Service) -> None:
    path = "/v2/models/reprise/infer"
    plain = ask(service, "POST", path, {"inputs": tensors(ROWS[:9])}).json()["outputs"]
    encoded = service.bundle.encode(ROWS[:9])
    feeds = {each.column: encoded[each.name] for each in service.bundle.signature.inputs}
    inputs, parts = [], []
    for each in tensors(ROWS[:9]):
        parts.append(to_bytes(feeds[each["name"]], each["datatype"]))
        each["parameters"] = {"binary_data_size": len(parts[-1])}
        del each["data"]
        inputs.append(each)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = ask(service, "POST", path, head + b"".join(parts), headers=length)
    assert answer.headers["content-type"] == "application/octet-stream"
    said = int(answer.headers["inference-header-content-length"])
    start = said
    for output, expected in zip(json.loads(answer.content[:said])["outputs"], plain, strict=True):
        size = output["parameters"]["binary_data_size"]
        raw = answer.content[start : start + size]
        tensor = from_bytes(raw, output["datatype"], tuple(output["shape"]), "x")
        assert tensor.ravel().tolist() == expected["data"]
        start += size
    assert start == len(answer.content)
    for wrong in (head + b"".join(parts)[:-1], head + b"".join(parts) + b"x"):
        assert ask(service, "POST", path, wrong, headers=length).status_code == 400
    for number in ("x", "-1", "9" * 5000, str(10**6)):
        length = {"Inference-Header-Content-Length": number}
        assert ask(service, "POST", path, head, headers=length).status_code == 400


# Stands for a value that is nested deeply.
DEEP = "DEEP"


def changed(index: int, **values: object) -> dict[str, object]:
    inputs = tensors(ROWS[:2])
    inputs[index] |= values
    return {"inputs": inputs}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "inputs"),
        ({"inputs": [1]}, "an object"),
        ({"inputs": tensors(ROWS[:2])[1:]}, "missing: size"),
        ({"inputs": tensors(ROWS[:2]) + tensors(ROWS[:2])}, "'size' is there twice"),
        (changed(0, name="siz"), "no input 'siz'; the model has size, town"),
        (changed(0, datatype="FP8"), "'FP8' is none of BOOL"),
        (changed(0, shape=[2, 2]), "shape"),
        (changed(0, shape=[3]), "2 values do not fill"),
        (changed(0, shape=[2**62]), "do not fill"),
        (changed(0, data=["a", "b"]), "no FP64"),
        (changed(0, data={}), "data must be a list"),
        (changed(0, data=None), "data must be a list"),
        (changed(0, data=1.0, shape=[1]), "data must be a list"),
        (changed(0, parameters={"binary_data_size": 0}), "both data and binary_data_size"),
        (changed(0, datatype="FP16", data=[1.0, 1e6]), "FP16 does not hold"),
        (changed(0, datatype="FP32", data=[1, 10**39]), "FP32 does not hold"),
        (changed(0, datatype="FP32", data=[None, 10**39]), "FP32 does not hold"),
        (changed(0, datatype="INT64", data=[1, 2**64]), "no INT64"),
        (changed(0, name=DEEP), "there is no input [[["),
        (changed(0, datatype=DEEP), "datatype [[["),
        (changed(0, shape=[2, *[1] * 9999]), "is of shape [2, 1,"),
        (changed(1, datatype="FP64", data=[1.5, 2**53 + 1]), "FP64 does not hold 9007199254740993"),
        (changed(1, datatype="FP64", data=[1.5, 2**64 + 1]), "BYTES does, as a text"),
        (changed(0, datatype="INT8", data=[1, 300]), "INT8 does not hold"),
        (changed(0, datatype="BYTES", data=["1", "2"]), "not BYTES"),
        (changed(0, data=[1.0, 1e300]), "computed with"),
        (changed(1, data=["a", 1]), "texts"),
        (changed(2, data=[0.0, 2.0]), "0, 1 or a gap"),
        (changed(3, data=[[1, 2, 3], [4]]), "one length"),
        (changed(3, data=[None] * 12), "without gaps"),
        (changed(3, datatype="FP64", data=[0.0] * 11 + [1e300]), "numbers that float32 holds"),
        ({**changed(0), "outputs": [{"name": DEEP}]}, "there is no output [[["),
        ({**changed(0), "outputs": [{"name": "y"}]}, "no output 'y'"),
        ({**changed(0), "id": 3}, "id"),
        ({**changed(0), "parameters": 3}, "parameters"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(service: Service, body: object, said: str) -> None:
    content = json.dumps(body).replace(f'"{DEEP}"', "[" * 900 + "]" * 900).encode()
    answer = ask(service, "POST", "/v2/models/reprise/infer", content)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


def test_the_page_works_offline_and_its_examples_work(service: Service) -> None:
    page = ask(service, "GET", "/docs").text
    assert "://" not in page
    for asset in re.findall(r'(?:src|href)="(docs/[^"]+)"', page):
        assert ask(service, "GET", f"/{asset}").status_code == 200
    described = ask(service, "GET", "/openapi.json").json()
    paths = ("/predict", "/v2/models/reprise/infer")
    for path in paths:
        content = described["paths"][path]["post"]["requestBody"]["content"]
        example = content["application/json"]["example"]
        assert ask(service, "POST", path, example).status_code == 200
    assert ask(service, "GET", "/example").json() == {
        "rows": [example_row(service.bundle.signature)]
    }
    assert "/v2/health/live" in described["paths"]


def test_the_token_is_asked_for_but_for_health(service: Service, bundle: Bundle) -> None:
    guarded = Service(replace(service.settings, token=SECRET), bundle)
    assert SECRET not in repr(guarded.settings)
    assert ask(guarded, "GET", "/v2/health/ready").status_code == 200
    for path in ("/metrics", "/docs", "/v2", "/nothing"):
        answer = ask(guarded, "GET", path)
        assert answer.status_code == 401
        assert "Basic" in answer.headers["www-authenticate"]
    for given in (f"Bearer {SECRET}x", "Bearer", f"Basic {SECRET}", "Basic eDp5", SECRET, "é"):
        scope = {"path": "/predict", "headers": [(b"authorization", given.encode())]}
        with pytest.raises(RequestError, match="asks for its token"):
            check_token(scope, SECRET)
    headers = {"Authorization": f"Bearer {SECRET}"}
    answer = ask(guarded, "POST", "/predict", {"rows": ROWS[:1]}, headers=headers)
    assert answer.status_code == 200
    assert ask(guarded, "GET", "/docs", auth=("any", SECRET)).status_code == 200


def test_elsewhere_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert [read_token(host) for host in ("127.0.0.1", "localhost", "::1")] == [None] * 3
    with pytest.raises(UserError, match=r"--host 0.0.0.0 can be reached from other machines"):
        read_token("0.0.0.0")
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(UserError, match="it needs 16 or more"):
        read_token("127.0.0.1")
    monkeypatch.setenv(TOKEN, SECRET)
    assert read_token("0.0.0.0") == SECRET


class Slow:
    """A session that notes the rows of each run, and takes its time."""

    def __init__(self, seconds: float = 0.05, *, fails: bool = False) -> None:
        self.seconds, self.fails, self.runs = seconds, fails, list[int]()

    def run(self, _: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.runs.append(len(feeds["x"]))
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("no memory")
        return [feeds["x"] * 2]


def with_session(bundle: Bundle, session: object, inline_rows: int = 0) -> Bundle:
    return replace(bundle, session=session, inline_rows=inline_rows)


def rows_of(*values: int) -> dict[str, np.ndarray]:
    return {"x": np.array(values)}


def test_requests_that_wait_go_into_one_run(bundle: Bundle) -> None:
    async def load(inline_rows: int) -> list[int]:
        session = Slow()
        slow = with_session(bundle, session, inline_rows)
        batcher = Batcher(1000, lambda _: None)
        first = asyncio.create_task(batcher.run(slow, rows_of(0), 1))
        await asyncio.sleep(0.01)
        rest = [batcher.run(slow, rows_of(i, -i), 2) for i in range(1, 9)]
        found = await asyncio.gather(first, *rest)
        assert [out[0].tolist() for out in found[1:]] == [[2 * i, -2 * i] for i in range(1, 9)]
        assert batcher.queued_rows == 0
        return session.runs

    assert asyncio.run(load(0)) == [1, 16]
    # On the event loop itself, too.
    assert asyncio.run(load(1000)) == [1, 16]


def test_two_models_are_not_mixed_and_a_batch_is_bounded(bundle: Bundle) -> None:
    async def load() -> None:
        old, new = Slow(0.01), Slow(0.01)
        batcher = Batcher(10_000, lambda _: None)
        jobs = [
            batcher.run(with_session(bundle, session), rows_of(*range(size)), size)
            for session, size in ((old, 1000), (old, 25), (new, 3), (old, 2000), (new, 1))
        ]
        found = await asyncio.gather(*jobs)
        assert [len(out[0]) for out in found] == [1000, 25, 3, 2000, 1]
        assert (old.runs, new.runs) == ([1000, 25, 2000], [3, 1])

    asyncio.run(load())


def test_a_full_queue_says_when_to_try_again(bundle: Bundle) -> None:
    async def load() -> None:
        slow = with_session(bundle, Slow(0.1))
        batcher = Batcher(10, lambda _: None)
        running = [asyncio.create_task(batcher.run(slow, rows_of(*range(6)), 6))]
        await asyncio.sleep(0.02)
        running.append(asyncio.create_task(batcher.run(slow, rows_of(*range(6)), 6)))
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as refused:
            await batcher.run(slow, rows_of(*range(6)), 6)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        # Who gives up waiting makes room.
        running[1].cancel()
        await running[0]
        assert len((await batcher.run(slow, rows_of(1), 1))[0]) == 1

    asyncio.run(load())


@pytest.mark.parametrize("inline_rows", [0, 100])
def test_a_run_that_fails_fails_its_requests_alone(
    service: Service, bundle: Bundle, inline_rows: int
) -> None:
    service.take(with_session(bundle, Slow(0, fails=True), inline_rows))
    answer = ask(service, "POST", "/predict", {"rows": ROWS[:1]})
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    service.take(bundle)
    assert ask(service, "POST", "/predict", {"rows": ROWS[:1]}).status_code == 200


class Sleepy:
    """The model, slowly."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> Any:
        time.sleep(0.5)
        return self.session.run(names, feeds)


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


def test_a_slow_run_keeps_nobody_from_health_and_ends_in_time(
    service: Service, bundle: Bundle
) -> None:
    service.take(with_session(bundle, Sleepy(bundle.session)))

    async def load(seconds: float) -> int:
        hurried = Service(replace(service.settings, timeout_seconds=seconds), service.bundle)
        async with client(hurried) as http:
            slow = asyncio.create_task(http.post("/predict", json={"rows": ROWS}))
            await asyncio.sleep(0.05)
            start = time.monotonic()
            assert (await http.get("/v2/health/live")).status_code == 200
            assert time.monotonic() - start < 0.3
            assert not slow.done()
            return (await slow).status_code

    assert asyncio.run(load(30)) == 200
    assert asyncio.run(load(0.2)) == 504


def test_metrics_count_by_route_and_not_by_path(service: Service) -> None:
    ask(service, "POST", "/predict", {"rows": ROWS[:3]})
    for path in ("/a", "/b", "/v2/models/x/y"):
        ask(service, "GET", path)
    text = ask(service, "GET", "/metrics").text
    assert 'reprise_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'reprise_requests_total{route="other",status="404"} 2.0' in text
    assert "reprise_rows_total 3.0" in text
    assert "reprise_batch_rows_sum 3.0" in text
    assert f'reprise_model{{version="{service.bundle.version}"}} 1.0' in text
    assert "reprise_queued_rows 0.0" in text
    assert 'reprise_reloads_total{result="broken"} 0.0' in text
    assert route_of("/v2/models/a/versions/1/infer") == "/v2/models/{name}/infer"


def place(source: Path, target: Path, *names: str) -> None:
    for name in names or FILES:
        shutil.copy(source / name, target / f".{name}.tmp")
        (target / f".{name}.tmp").replace(target / name)


def test_a_new_model_is_taken_whole_and_a_broken_one_is_told_of(
    project: Project, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_now, "LOOK_SECONDS", 0.05)
    place(project.path / "data/infer", tmp_path)
    service = Service(Settings(tmp_path), load_bundle(tmp_path))
    old, said = service.bundle, list[str]()

    async def story() -> None:
        task = asyncio.create_task(serving_now.watch(service, said.append))
        for name in FILES:
            (tmp_path / name).unlink()
        await asyncio.sleep(0.15)
        place(other, tmp_path, FILES[0])
        await asyncio.sleep(0.15)
        # Nothing, or one of two, is no model; and no news.
        assert (service.bundle, said) == (old, [])
        place(other, tmp_path, FILES[1])
        await until(lambda: service.bundle is not old)
        new = service.bundle
        assert [each.column for each in new.signature.inputs] == ["town", "smoker"]
        assert "its columns are others" in said[0]
        # A signature that stays beside another model's graph.
        place(project.path / "data/infer", tmp_path, FILES[0])
        await until(lambda: len(said) == 2)
        assert "do not belong together" in said[1]
        (tmp_path / FILES[1]).write_text("{}")
        await until(lambda: len(said) == 3)
        assert service.bundle is new
        # The same bytes again, later: nothing is loaded.
        place(other, tmp_path)
        await asyncio.sleep(0.3)
        assert (service.bundle, len(said)) == (new, 3)
        assert not task.done()
        task.cancel()

    asyncio.run(story())
    text = service.metrics.text().decode()
    assert 'reprise_reloads_total{result="taken"} 1.0' in text
    assert 'reprise_reloads_total{result="broken"} 2.0' in text
    assert old.version not in text
    (answer,) = ask(
        service, "POST", "/predict", {"rows": [{"town": "Oslo", "smoker": None}]}
    ).json()["predictions"]
    assert list(answer) == ["prediction"]


def test_a_pipe_in_the_models_place_is_told_of_and_ends_no_reload(
    project: Project, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_now, "LOOK_SECONDS", 0.02)
    place(project.path / "data/infer", tmp_path)
    service = Service(Settings(tmp_path), load_bundle(tmp_path))
    old, said = service.bundle, list[str]()

    async def story() -> None:
        task = asyncio.create_task(serving_now.watch(service, said.append))
        for name in FILES:
            (tmp_path / name).unlink()
            os.mkfifo(tmp_path / name)
            await until(lambda: bool(said))
            assert "is no regular file" in said.pop()
            place(project.path / "data/infer", tmp_path, name)
        # A mistake of ours at one model is no reason to look for no other.
        with monkeypatch.context() as broken:
            broken.setattr(serving_now, "load_bundle", lambda _: {}["x"])
            place(other, tmp_path)
            await until(lambda: bool(said))
            assert "KeyError" in said.pop()
        place(other, tmp_path)
        await until(lambda: service.bundle is not old)
        task.cancel()

    asyncio.run(story())


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from pipeline.cli import main; main()", "serve", *arguments]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The command in a process of its own; its address and the rest of what it says first."""
    with started(command("--port", "0", "--model", str(folder))) as found:
        yield found


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=project_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].strip().startswith("curl"):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        yield process, lines[0].split()[0], "".join(lines)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_command_serves_reloads_and_finishes_what_is_under_way(
    project: Project, other: Path, tmp_path: Path
) -> None:
    place(project.path / "data/infer", tmp_path)
    with serving(tmp_path) as (process, url, said):
        answer = subprocess.run(
            said.splitlines()[-1], shell=True, capture_output=True, text=True, timeout=SECONDS
        )
        assert json.loads(answer.stdout)["predictions"][0]["prediction"] in ("ill", "well")

        place(other, tmp_path)
        end = time.monotonic() + SECONDS
        while httpx.get(f"{url}/example").json()["rows"][0].keys() != {"town", "smoker"}:
            assert time.monotonic() < end
            time.sleep(0.1)

        body = b'{"rows": [{"town": "Oslo", "smoker": true}]}'
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:10])
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/v2/health/ready")
            assert process.poll() is None
            connection.sendall(body[10:])
            received = connection.recv(65536)
            while b'"predictions"' not in received:
                received += connection.recv(65536) or pytest.fail(received.decode())
        assert received.startswith(b"HTTP/1.1 200")
        assert process.wait(SECONDS) == 0
        assert process.stdout is not None
        rest = process.stdout.read()
        assert rest.splitlines()[-1] == "stopped"
        assert "in place of" in rest


# The command with a new model that is never read to its end.
ENDLESS = """
import time
from pipeline.serve import command, service
service.LOOK_SECONDS, command.GRACE_SECONDS = 0.05, 0.3
def load(folder):
    print("reading", flush=True)
    time.sleep(600)
service.load_bundle = load
from pipeline.cli import main
main()
"""


def test_a_thread_that_never_comes_back_keeps_nobody_from_the_end(
    project: Project, tmp_path: Path
) -> None:
    place(project.path / "data/infer", tmp_path)
    arguments = ["serve", "--port", "0", "--model", str(tmp_path)]
    with started([sys.executable, "-c", ENDLESS, *arguments]) as (process, _, _):
        assert process.stdout is not None
        place(project.path / "data/infer", tmp_path)
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert "a thread was still at work" in process.stdout.read()


def test_it_does_not_start_without_what_it_needs(project: Project, tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=project_environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "'dvc repro' makes it" in refused("--model", str(tmp_path))
    model = str(project.path / "data/infer")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port), "--model", model)
        assert f"port {port} can't be used" in said
        assert f"process {os.getpid()}" in said


def test_the_server_loads_neither_torch_nor_polars() -> None:
    code = "import sys, pipeline.serve.command; print({'torch', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_closed_pipe_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def closed(*words: object, **__: object) -> None:
        tried.extend(words)
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    _say("serving another model")
    assert tried == ["serving another model"]

"""The application: its page, token, time limit and metrics."""

import asyncio
import re
import time
from dataclasses import replace

import pytest

from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.signature import example_row
from pipeline.serve.command import TOKEN, read_token
from pipeline.serve.http.guard import check_token
from pipeline.serve.metrics import route_of
from pipeline.serve.service import Service
from stages.common.errors import UserError
from tests.support.serving import ROWS, SECRET, Sleepy, ask, client, with_session


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

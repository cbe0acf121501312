"""Pages of other sites, and hosts of other names."""

import socket
from dataclasses import replace

import pytest

from pipeline.serve import command
from pipeline.serve.http.hosts import known_hosts
from pipeline.serve.service import Service
from stages.common.errors import UserError
from tests.support.serving import IMAGE, ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[(name, 200) for name in ("localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000")],
        *[(name, 200) for name in ("a.localhost:1", "localhost.", "Models.example:80", "10.0.0.7")],
        *[(name, 421) for name in ("a.example", "a.example:8000", "localhost.a.example", "")],
        *[(name, 421) for name in ("127.0.0.1.a.example:8000", "x.models.example", "[a]", "é")],
    ],
)
def test_a_page_that_points_its_name_here_reads_nothing(
    service: Service, host: str, status: int
) -> None:
    headers = {"Host": host.encode()}
    for path in ("/docs", "/example", "/metrics", "/v2/health/live"):
        answer = ask(service, "GET", path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or list(answer.json()) == ["error"]


def test_a_server_is_known_by_its_own_names() -> None:
    known = known_hosts("A.example", ("b.example",), loopback=True)
    assert known == {"a.example", "b.example"}
    assert socket.gethostname().lower() in known_hosts("0.0.0.0", (), loopback=False)


def test_no_other_sites_page_may_ask(service: Service) -> None:
    row = {IMAGE: 1.0, "\x1b]0;x\x07": "a"}
    body = {"rows": [row]}
    for origin, site, status in (
        ("http://a.example", "cross-site", 403),
        ("http://localhost:3000", "same-site", 403),
        ("http://localhost", "same-origin", 200),
    ):
        headers = {"Origin": origin, "Sec-Fetch-Site": site, "Content-Type": "text/plain"}
        answer = ask(service, "POST", "/predict", body, headers=headers)
        assert answer.status_code == status
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        before = ask(service, "OPTIONS", "/predict", headers=asked)
        assert before.status_code == 405
        for each in (answer, before):
            assert not [name for name in each.headers if name.startswith("access-control")]


def test_a_name_that_no_path_can_hold_is_refused(service: Service) -> None:
    for name in ("a/b", "<script>", "", "a b"):
        with pytest.raises(UserError, match="--name"):
            command.serve(replace(service.settings, name=name), "127.0.0.1", 0, access_log=False)

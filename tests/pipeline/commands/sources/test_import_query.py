"""`reprise import-query`: rows of a real PostgreSQL become a source whose versions DVC knows."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import polars as pl
import pytest

from pipeline.commands.sources.notes import note_sources
from stages.common.yamlfile import read_yaml
from tests.conftest import ROOT, Project, project_environment
from tests.support.postgres import PASSWORD, WRITTEN, Postgres, start_postgres
from tests.support.remotes import IGNORED, make_tiny

QUERY, SNAPSHOT = "data/raw/houses.sql", "data/raw/houses.parquet"
ASK = ("reprise", "import-query", QUERY)
HOUSES = """CREATE TABLE houses AS SELECT i AS id, (i * 7 % 13)::numeric(12, 2) / 4 AS area,
  CASE WHEN i % 5 > 0 THEN 'd' || i % 3 END AS district, (i * 7 % 13) * 2.5 + i % 3 AS price
  FROM generate_series(1, 200) AS i"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with start_postgres() as server:
        server.run(HOUSES)
        yield server


@pytest.fixture(scope="module")
def project(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_tiny(tmp_path_factory.mktemp("sources") / "project", origin=False, store=False)
    (project.path / "stages").mkdir()
    (project.path / "data/raw").mkdir(parents=True)
    (project.path / "data/raw/kept.parquet").write_text("git's own")
    ignored = (ROOT / ".gitignore").read_text() + IGNORED
    (project.path / ".gitignore").write_text(ignored)
    (project.path / QUERY).write_text("SELECT id, area, district, price\nFROM houses;\n")
    done = ask(project, postgres, "--from", "REPRISE_HOUSES")
    assert "data/raw/houses.sql: 200 rows, 4 columns" in done.stdout
    project.commit("a snapshot")
    return project


def ask(
    project: Project, postgres: Postgres, *options: str, ok: bool = True, url: str | None = None
) -> "subprocess.CompletedProcess[str]":
    return project.run(*ASK, *options, ok=ok, env={"REPRISE_HOUSES": url or postgres.url})


def test_rows_are_a_version_and_newer_rows_the_next(project: Project, postgres: Postgres) -> None:
    first = (project.path / SNAPSHOT).read_bytes()
    said = read_yaml(project.path / f"{SNAPSHOT}.dvc")["meta"]["snapshot"]
    assert (said["query"], said["rows"], said["variable"]) == (QUERY, 200, "REPRISE_HOUSES")
    assert said["sql"] == "SELECT id, area, district, price\nFROM houses;\n"
    # The same rows lie elsewhere in the table: neither a byte nor git's status changes.
    postgres.run("UPDATE houses SET area = area WHERE id % 3 = 0", "VACUUM FULL houses")
    assert "it stays as it is" in ask(project, postgres).stdout
    assert project.run("git", "status", "--porcelain").stdout == ""
    postgres.run("INSERT INTO houses VALUES (0, 1.5, NULL, 3)")
    assert "201 rows (before: 200)" in ask(project, postgres).stdout
    assert pl.read_parquet(project.path / SNAPSHOT)["id"].to_list() == [*range(201)]
    project.run("git", "checkout", "--quiet", "--", f"{SNAPSHOT}.dvc")
    project.run("dvc", "checkout", "--quiet", SNAPSHOT)
    assert (project.path / SNAPSHOT).read_bytes() == first


def test_the_password_is_in_no_file_and_on_no_screen(project: Project, postgres: Postgres) -> None:
    wrong = postgres.url.replace(WRITTEN, "anoth%40er")
    done = ask(project, postgres, ok=False, url=wrong)
    assert "no connection to the database of REPRISE_HOUSES" in done.stderr
    assert "password authentication failed" in done.stderr
    # A driver would take what stands behind the sign for the host, and print it.
    torn = ask(project, postgres, ok=False, url=postgres.url.replace(WRITTEN, "tor@n"))
    assert "can't be divided into its parts" in torn.stderr
    given = ask(project, postgres, "--from", postgres.url, ok=False)
    assert "--from takes the name of an environment variable" in given.stderr
    said = "".join(each.stdout + each.stderr for each in (done, torn, given))
    assert not [word for word in ("anoth", "er@", "tor@", "n@", WRITTEN, "Trace") if word in said]
    written = [path.read_bytes() for path in project.path.rglob("*") if path.is_file()]
    assert not [text for text in written if PASSWORD.encode() in text or WRITTEN.encode() in text]


def test_what_is_there_is_not_lost(project: Project, postgres: Postgres) -> None:
    before = (project.path / SNAPSHOT).read_bytes()
    other = project.path / "data/raw/other.sql"
    other.write_text("SELECT random() AS x, generate_series(1, 100000) AS y")
    words = ("reprise", "import-query", "data/raw/other.sql", "--from", "REPRISE_HOUSES")
    url = {"REPRISE_HOUSES": postgres.url}
    for words_to, said in (
        (("--to", SNAPSHOT), "a snapshot of data/raw/houses.sql"),
        (("--to", "data/raw/kept.parquet"), "git tracks data/raw/kept.parquet"),
        (("--to", "data/raw/other.csv"), "a snapshot is a Parquet file"),
    ):
        assert said in project.run(*words, *words_to, ok=False, env=url).stderr
    # A file may have 64 kB, as on a disk that is full.
    full = ("bash", "-c", f"ulimit -f 64; {' '.join(words)} --to {SNAPSHOT} --force")
    assert "File too large" in project.run(*full, ok=False, env=url).stderr
    # DVC can't take the new rows.
    cache, aside = project.path / ".dvc/cache", project.path / ".dvc/aside"
    cache.rename(aside)
    cache.touch()
    done = project.run(*words, "--to", SNAPSHOT, "--force", ok=False, env=url)
    assert f"'dvc add {SNAPSHOT}' failed:\n  ERROR" in done.stderr
    cache.unlink()
    aside.rename(cache)
    other.unlink()
    assert (project.path / SNAPSHOT).read_bytes() == before
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert list((project.path / "data/raw").glob(".*.tmp")) == []


def test_one_that_is_killed_leaves_the_old_rows(project: Project, postgres: Postgres) -> None:
    before = (project.path / SNAPSHOT).read_bytes()
    project.edit(QUERY, "FROM houses", "FROM houses, LATERAL pg_sleep(id)")
    going = subprocess.Popen(
        ASK,
        cwd=project.path,
        env=project_environment() | {"REPRISE_HOUSES": postgres.url},
        start_new_session=True,
    )
    busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'"
    until = time.monotonic() + 60
    while not postgres.ask(busy):
        assert going.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(going.pid, signal.SIGKILL)
    going.wait()
    postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'")
    left = project.path / f"data/raw/.houses.parquet.{going.pid}.tmp"
    left.touch()
    project.run("git", "checkout", "--quiet", "--", QUERY)
    assert (project.path / SNAPSHOT).read_bytes() == before
    assert project.run("git", "status", "--porcelain").stdout == ""
    ask(project, postgres)
    assert not left.exists()


def test_a_query_that_was_edited_since_and_a_source_outside_are_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    params = f"prepare: {{source: {SNAPSHOT}}}\ninfer: {{input: null}}\n"
    elsewhere = project.path.parent / "houses.parquet"
    (project.path / "params.yaml").write_text(params)
    assert note_sources() == []
    project.edit(QUERY, "FROM houses", "FROM houses WHERE id > 0")
    (line,) = note_sources()
    assert line == (
        f"note: {SNAPSHOT} has the rows of an earlier {QUERY}: reprise import-query {QUERY}"
    )
    project.run("git", "checkout", "--quiet", "--", QUERY)
    (project.path / "params.yaml").write_text(params.replace(SNAPSHOT, str(elsewhere)))
    (line,) = note_sources()
    assert line.startswith(f"note: {elsewhere} lies outside the repository")

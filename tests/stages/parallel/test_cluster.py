"""Prepare on the workers of a cluster: the bytes of one thread, whoever is lost meanwhile."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest

import stages.formats.chunk as chunk
import stages.formats.csv as csv
import stages.formats.text.compressed as compressed
import stages.infer.__main__ as infer_stage
import stages.parallel.cluster as cluster_module
import stages.prepare.table.collected as collected
import stages.prepare.table.sample as sample
from stages.common.errors import Problem, UserError
from stages.features.schema import read_schema
from stages.infer.write import PredictionSummary, write_predictions
from stages.model.calibration import Calibration
from stages.model.predictor import load_predictor
from stages.parallel.open_mapper import open_mapper
from tests.conftest import ROOT
from tests.stages.parallel.time_out import time_out
from tests.stages.prepare.test_parts import SUITE, mixed, run
from tests.support.cluster import Cluster, start_cluster, unused_port
from tests.support.samples import mixed_table, run_stages, small_project

pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
SOON = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with start_cluster(tmp_path_factory.mktemp("cluster"), 3) as found:
        yield found


@pytest.fixture
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of some hundred rows, all of them on the disk."""
    monkeypatch.setattr(compressed, "READ_BYTES", 8000)
    monkeypatch.setattr(csv, "LAYOUT_BYTES", 4000)
    monkeypatch.setattr(csv, "PART_BYTES", 20_000)
    monkeypatch.setattr(collected, "MEMORY_BYTES", 0)
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 20_000)


def write_tables(folder: Path) -> tuple[Path, Path]:
    """A table without quotes in its file, and a suite about it."""
    one = mixed().with_columns(price=pl.col("price").str.replace_all(",", ""))
    table = one
    source, suite = folder / "table.csv", folder / "suite.yaml"
    table.write_csv(source)
    assert b'"' not in source.read_bytes()
    suite.write_text(SUITE)
    return source, suite


def files_of(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def kill_when(folder: Path, pattern: str, pid: int, killed: list[float]) -> None:
    """End a process without a warning as soon as such a file is there."""
    until = time.monotonic() + SOON
    while not any(folder.glob(pattern)) and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    killed.append(time.monotonic())


def test_a_cluster_that_loses_a_worker_writes_the_bytes_of_one_thread(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    cluster: Cluster,
    many_parts: None,
) -> None:
    source, suite = write_tables(tmp_path)
    monkeypatch.setenv("REPRISE_THREADS", "1")
    run(tmp_path / "alone", source, suite)
    alone, said = files_of(tmp_path / "alone"), capfd.readouterr().out
    (way,) = (f for f in read_schema(tmp_path / "alone").features if f.name == "way")
    assert (way.kind, way.thousands, way.unit) == ("numeric", " ", "km")
    assert len(alone) > 15
    monkeypatch.setenv("REPRISE_DASK", cluster.address)
    # While ranges are read, and while arrays are written.
    moments = ("parts/table/*/000003.arrow", "train/key.npy")
    for number, there in enumerate(moments):
        cluster.wait_for(3)
        out, killed = tmp_path / f"cluster-{number}", list[float]()
        pid = cluster.workers[f"worker-{number}"].pid
        killer = threading.Thread(target=kill_when, args=(out, there, pid, killed))
        killer.start()
        run(out, source, suite)
        ended = time.monotonic()
        killer.join()
        assert killed[0] < ended
        cluster.end(f"worker-{number}")
        assert files_of(out) == alone
        assert capfd.readouterr().out == said
        cluster.start_worker(f"worker-{number + 3}")


@pytest.mark.soak
def test_a_cluster_predicts_the_bytes_of_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    table = mixed_table()
    project = small_project(tmp_path / "p", table, {"prepare.key": "id"})
    run_stages(project, "prepare", "build", "tune", "train", "infer")
    monkeypatch.chdir(project.path)
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 7)
    source = tmp_path / "new.csv"
    # A value that training has not seen, and a row that the model can't be given.
    changed = pl.concat([table] * 5).with_row_index()
    odd = changed["index"] % 100 == 50
    size = changed["size"].cast(pl.String).set(changed["index"] == 333, "tall")
    changed = changed.with_columns(size, town=changed["town"].set(odd, "Paris")).drop("index")
    changed.write_csv(source)
    monkeypatch.setenv("REPRISE_DASK", cluster.address)
    with infer_stage.open_cluster_for(source, None, tmp_path) as own:
        assert own is None
    monkeypatch.setattr(infer_stage, "CLUSTER_BYTES", 0)
    name, process = next(iter(cluster.workers.items()))
    lost = (tmp_path / "0-there", "new.parquet", process.pid, list[float]())
    killer = threading.Thread(target=kill_when, args=lost)
    killer.start()
    found = predict_here_and_there(source, tmp_path / "0", cluster, monkeypatch)
    killer.join()
    cluster.end(name)
    cluster.start_worker(f"{name}-again")
    cluster.wait_for(3)
    assert found.num_predicted == 5 * table.height - 1
    assert any("'Paris'" in note for note in found.notes)
    # The same weights: what else a living worker has loaded, it does not keep.
    calibration = project.path / "data/train/calibration.json"
    calibration.write_text(Calibration(temperature=7.0).model_dump_json())
    predict_here_and_there(source, tmp_path / "1", cluster, monkeypatch)
    assert files_of(tmp_path / "1-there") != files_of(tmp_path / "0-there")


def predict_here_and_there(
    source: Path, folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> PredictionSummary:
    """Predict in this process and on the cluster: the same bytes."""
    summaries = []
    for place, address in (("here", ""), ("there", cluster.address)):
        monkeypatch.setenv("REPRISE_DASK", address)
        out = folder.with_name(f"{folder.name}-{place}")
        out.mkdir()
        files = out / "new.parquet", out / "new.csv"
        with infer_stage.open_cluster_for(source, None, out) as own:
            assert (own is None) == (address == "")
            predictor = load_predictor()
            summary = write_predictions(source, *files, predictor, "infer.input", cluster=own)
        summaries.append((summary, files_of(out)))
    assert summaries[0] == summaries[1]
    return summaries[0][0]


@pytest.mark.parametrize("column", ["size", "id"])
def test_an_error_of_a_part_is_that_of_one_thread(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: Cluster,
    many_parts: None,
    column: str,
) -> None:
    source, _ = write_tables(tmp_path)
    text = source.read_text().splitlines()
    # A field too many far down; a quote, with which the file is read by one process.
    text[2500] = text[2500].replace("row-2499", '"row-7"') if column == "id" else "row-x,unknown,"
    text[2500] += text[2400][text[2400].index(",", 12) :] if column == "size" else ""
    source.write_text("\n".join(text) + "\n")
    found: list[list[Problem]] = []
    for address in ("", cluster.address):
        monkeypatch.setenv("REPRISE_DASK", address)
        with pytest.raises(UserError) as caught:
            run(tmp_path / f"out{len(found)}", source)
        found.append(caught.value.problems)
    assert found[0] == found[1]
    assert found[0][0].key is not None


def test_a_worker_that_would_compute_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REPRISE_DASK", cluster.address)
    num_workers = len(cluster.workers)
    cluster.wait_for(num_workers)
    with open_mapper("prepare", tmp_path) as mapper:
        assert list(mapper.map(partial(pow, 2), range(30))) == [2**n for n in range(30)]
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    with (tmp_path / "stages/features/encode.py").open("a") as code:
        code.write("# edited\n")
    cluster.start_worker("other", PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1")
    cluster.wait_for(num_workers + 1)
    with pytest.raises(UserError) as caught, open_mapper("prepare", tmp_path):
        pass
    cluster.end("other")
    cluster.wait_for(num_workers)
    message = str(caught.value)
    assert f"its code in {tmp_path} is " in message
    assert message.count("start it anew in a clone at this commit") == 1
    assert not list(tmp_path.glob("seen-*"))


def test_a_worker_of_several_threads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REPRISE_DASK", cluster.address)
    num_workers = len(cluster.workers)
    cluster.start_worker("wide", num_threads=2)
    cluster.wait_for(num_workers + 1)
    said = "it has 2 threads: start it with --nthreads 1"
    with pytest.raises(UserError, match=said), open_mapper("prepare", tmp_path):
        pass
    cluster.end("wide")
    cluster.wait_for(num_workers)


def test_a_part_that_raises_a_timeout_ends_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REPRISE_DASK", cluster.address)
    start = time.monotonic()
    with open_mapper("prepare", tmp_path) as mapper:
        results = mapper.map(time_out, range(5))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(TimeoutError, match="the disk does not answer"):
            next(results)
    assert time.monotonic() - start < SOON


def sleep_until_lost(folder: Path, lose: Callable[[], None]) -> None:
    with open_mapper("prepare", folder) as mapper:
        for place, _ in enumerate(mapper.map(time.sleep, [0.02] * 1000)):
            if place == 2:
                lose()


def test_a_cluster_that_goes_away_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cluster_module, "WAIT_SECONDS", 2.0)
    with start_cluster(tmp_path, 1) as own:
        monkeypatch.setenv("REPRISE_DASK", own.address)
        said = f"the cluster at {own.address} .REPRISE_DASK. has had no worker for 2 s that"
        with pytest.raises(UserError, match=said):
            sleep_until_lost(tmp_path, partial(own.end, "worker-0"))
        own.start_worker("another")
        own.wait_for(1)
        with pytest.raises(UserError, match="has gone away in the middle of the work"):
            sleep_until_lost(tmp_path, own.processes[0].kill)


def test_no_cluster_at_an_address_is_an_error_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 1.0)
    address = f"tcp://127.0.0.1:{unused_port()}"
    monkeypatch.setenv("REPRISE_DASK", address)
    start = time.monotonic()
    said = f"no scheduler of Dask's answers at {address}"
    with pytest.raises(UserError, match=said), open_mapper("prepare", tmp_path):
        pass
    assert time.monotonic() - start < SOON / 2

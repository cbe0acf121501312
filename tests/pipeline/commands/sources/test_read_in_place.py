"""A source in object storage: read where it lies, and known by its ETag."""

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.common.dvc_repo import open_repo
from pipeline.doctor.checks.dvc import find_left
from pipeline.elsewhere.inputs import name_run, read_inputs
from stages.common.addresses import FETCHED, local_path, name_objects
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from stages.prepare.table.open_table import open_table
from stages.runtime.finished import FINISHED, stop_if_changed
from stages.runtime.input_watch import begin
from stages.runtime.object_storage import fetch, fetched, list_objects, name_reader
from stages.runtime.storage_errors import explained
from tests.conftest import ROOT, Project
from tests.pipeline.commands.sources.conftest import BUCKET
from tests.support.pipeline.objects import FOLDER, ONE, SOURCE, source_file


def put_shards(storage: Any) -> None:
    """Put the table of SOURCE under FOLDER, in two files of which one has narrower numbers."""
    table = pl.read_parquet(source_file())
    parts = (table[:1000], table[1000:].with_columns(pl.col("id").cast(pl.Int16)))
    for number, rows in enumerate(parts):
        content = io.BytesIO()
        rows.write_parquet(content)
        name = f"digits/part-{number}.parquet"
        storage.put_object(Bucket=BUCKET, Key=name, Body=content.getvalue())


def results(project: Project) -> dict[str, bytes]:
    """What prepare has written, but for the page that names the source."""
    outputs = project.outputs()
    return {
        name: content
        for name, content in outputs.items()
        if name.startswith("data/prepare/") and not name.endswith(".html")
    }


def test_an_object_gives_the_bytes_of_the_file_and_reruns_when_it_is_replaced(
    clone: Project, storage: Any
) -> None:
    before = results(clone)
    storage.upload_file(str(clone.path / SOURCE), BUCKET, "digits.parquet")
    clone.run("git", "rm", "--quiet", SOURCE)
    clone.edit("params.yaml", SOURCE, ONE)
    assert clone.repro("prepare") == ["prepare"]
    assert results(clone) == before
    assert not (clone.path / FETCHED / "prepare").exists()
    assert "hidden" not in (clone.path / "dvc.lock").read_text()
    # A part of it, uploaded in another way: its ETag is no MD5.
    upload = storage.create_multipart_upload(Bucket=BUCKET, Key="digits.parquet")
    where = {"Bucket": BUCKET, "Key": "digits.parquet", "UploadId": upload["UploadId"]}
    changed = io.BytesIO()
    pl.read_parquet(source_file()).head(1500).write_parquet(changed)
    part = storage.upload_part(**where, PartNumber=1, Body=changed.getvalue())
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    storage.complete_multipart_upload(**where, MultipartUpload=parts)
    planned = json.loads(clone.run("reprise", "plan", "--json").stdout)
    states = {each["name"]: each["state"] for each in planned}
    assert [states[name] for name in ("prepare", "build", "evaluate")] == ["stale"] * 3
    assert [each["text"] for each in planned[0]["reasons"]] == [f"{ONE} changed"]
    # And one that is gone.
    storage.delete_object(Bucket=BUCKET, Key="digits.parquet")
    storage.put_object(Bucket=BUCKET, Key="digit.parquet", Body=b"")
    said = clone.run("reprise", "check", ok=False).stderr
    assert f"there is no object {ONE}" in said
    assert "params.yaml:9  prepare.source" in said
    assert f"did you mean 's3://{BUCKET}/digit.parquet'?" in said
    assert results(clone) == before


def test_the_objects_under_a_prefix_are_one_table(
    storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put_shards(storage)
    here = local_path("prepare", FOLDER)
    with fetched("prepare", [list_objects(FOLDER, None)]):
        table = open_table(here, "prepare.source", tmp_path).frame()
    # With the types that hold the values of each, and the rows in the order of the names.
    assert table.equals(pl.read_parquet(source_file()))
    storage.put_object(Bucket=BUCKET, Key="digits/part-2.parquet", Body=b"nothing")
    with (
        fetched("prepare", [list_objects(FOLDER, None)]),
        pytest.raises(UserError) as caught,
    ):
        open_table(here, "prepare.source", tmp_path)
    # The address is named, and not the folder that it was here for a moment.
    assert name_objects(str(caught.value)).startswith(f"cannot read {FOLDER.rstrip('/')}: ")


@pytest.mark.soak
def test_a_prefix_gives_the_bytes_of_the_file(clone: Project, storage: Any) -> None:
    before = results(clone)
    put_shards(storage)
    clone.edit("params.yaml", SOURCE, FOLDER)
    assert clone.repro("prepare") == ["prepare"]
    assert results(clone) == before
    assert clone.repro("prepare") == []
    storage.put_object(Bucket=BUCKET, Key="digits/part-2.parquet", Body=b"nothing")
    said = clone.run("dvc", "repro", "prepare", ok=False).stderr
    assert f"cannot read {FOLDER.rstrip('/')}: " in said
    assert results(clone) == before


def test_init_looks_at_an_object_and_writes_its_address(clone: Project, storage: Any) -> None:
    rows = pl.read_parquet(ROOT / "data/raw/breast_cancer.parquet").write_csv()
    storage.put_object(Bucket=BUCKET, Key="t/cancer.csv.gz", Body=gzip.compress(rows.encode()))
    address = f"s3://{BUCKET}/t/cancer.csv.gz"
    told = clone.run("reprise", "init", address, "--target", "diagnosis").stdout
    assert f"{address}: 569 rows, 32 columns" in told
    params = read_yaml(clone.path / "params.yaml")
    assert params["prepare"]["source"] == address
    assert params["prepare"]["expectations"] == "data/raw/cancer.expectations.yaml"
    clone.edit("params.yaml", "target: diagnosis", "target: diagnoses")
    said = clone.run("reprise", "check", ok=False).stderr
    assert f"{address} has no column 'diagnoses'" in said
    assert "did you mean 'diagnosis'?" in said
    assert str(FETCHED) not in said


def test_an_object_that_is_replaced_meanwhile_ends_the_stage(clone: Project, storage: Any) -> None:
    storage.upload_file(str(clone.path / SOURCE), BUCKET, "digits/part.parquet")
    clone.edit("params.yaml", SOURCE, FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.path)
        sent = _key_in_a_pool()
        snapshot, _ = begin("prepare")
        stop_if_changed(snapshot, clone.path / "out")
        (listing,) = snapshot.listings
        assert _key_in_a_pool() == sent
        storage.put_object(Bucket=BUCKET, Key="digits/part.parquet", Body=b"another")
        # DVC sees it. In a work pool it is another run, though the commit is the same.
        assert _key_in_a_pool() != sent
        with pytest.raises(UserError, match="was changed while it was fetched"):
            fetch("prepare", listing)
        (clone.path / "out").mkdir()
        with pytest.raises(UserError, match=f"{FOLDER}part.parquet was replaced"):
            stop_if_changed(snapshot, clone.path / "out")
        # One that is gone, and a storage that is: neither loses what was finished.
        storage.delete_object(Bucket=BUCKET, Key="digits/part.parquet")
        for said in (f"{FOLDER}part.parquet was deleted", f"{FOLDER} can't be looked at: "):
            (clone.path / "out/made").touch()
            with pytest.raises(UserError, match=said):
                stop_if_changed(snapshot, clone.path / "out")
            assert [path.name for path in FINISHED.glob("prepare/*/*")] == ["made"]
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


def test_a_mistake_is_told_and_not_that_storage_is_elsewhere(clone: Project, storage: Any) -> None:
    storage.upload_file(str(clone.path / SOURCE), BUCKET, "digits.parquet")
    clone.edit("params.yaml", SOURCE, ONE)
    clone.edit("params.yaml", "target: label", "target: lable")
    # As with a storage that is not on this machine.
    code = (
        "import runpy; from stages.runtime import audit; audit._LOOPBACK = (); "
        "runpy.run_module('stages.prepare', run_name='__main__')"
    )
    said = clone.run(sys.executable, "-c", code, ok=False).stderr
    assert f"{ONE} has no column 'lable'" in said
    assert "connects to" not in said


def _key_in_a_pool() -> str:
    with open_repo() as repo:
        return name_run(read_inputs(repo, "prepare"), "commit", "origin", "pool", "sender")


def test_a_refusal_is_told_with_the_key() -> None:
    with (
        pytest.raises(UserError, match="refuses") as caught,
        explained(ONE, "prepare.source", None),
    ):
        raise PermissionError("Access Denied")
    assert [problem.key for problem in caught.value.problems] == ["prepare.source"]
    with pytest.raises(ZeroDivisionError), explained(ONE, "prepare.source", None):
        raise ZeroDivisionError


def test_an_object_is_fetched_whole_and_removed(storage: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    for name in ("t/a.csv", "t/deep/b.csv", "t/empty.csv"):
        storage.put_object(Bucket=BUCKET, Key=name, Body=b"" if "empty" in name else content)
    # As consoles mark a folder.
    storage.put_object(Bucket=BUCKET, Key="t/", Body=b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        address = f"s3://{BUCKET}/t/"
        listing = list_objects(address, None)
        assert list(listing.objects) == ["a.csv", "deep/b.csv", "empty.csv"]
        with fetched("train", [listing]):
            here = local_path("train", address)
            assert (here / "deep/b.csv").read_bytes() == content
            assert name_objects(f"in {here.resolve()}/a.csv:") == f"in s3://{BUCKET}/t/a.csv:"
        assert not (FETCHED / "train").exists()


def test_objects_that_can_be_no_files_are_refused(storage: Any) -> None:
    for name in ("t/a", "t/a/b.csv", f"u/{256 * 'x'}.csv"):
        storage.put_object(Bucket=BUCKET, Key=name, Body=b"x")
    with pytest.raises(UserError, match="one would be a file and the folder of the other: 'a' and"):
        list_objects(f"s3://{BUCKET}/t/", None)
    with pytest.raises(UserError, match="can be no file in a folder: 'xxx"):
        list_objects(f"s3://{BUCKET}/u/", None)
    with pytest.raises(UserError, match="an address is such as"):
        list_objects(f"s3://{BUCKET}/../../x.csv", None)


def test_what_came_is_counted(
    storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    storage.put_object(Bucket=BUCKET, Key="t.csv", Body=b"0123456789")
    listing = list_objects(f"s3://{BUCKET}/t.csv", None)
    from s3fs.core import S3File

    read = S3File.read
    monkeypatch.setattr(S3File, "read", lambda self, size: read(self, size)[:4])
    with pytest.raises(UserError, match="4 bytes came, and it has 10"):
        fetch("train", listing)


def test_what_living_commands_fetch_is_not_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (name_reader("init"), "init-4194305", "head-prepare.source-0123"):
        (FETCHED / name).mkdir(parents=True)
    assert list(find_left()) == [FETCHED / "init-4194305"]

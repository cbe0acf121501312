"""Sources on S3: DVC brings them in and sees what has changed, and keeps outputs there."""

import contextlib
import shutil
from typing import Any

import polars as pl
import pytest

from pipeline.doctor.checks import remotes
from pipeline.doctor.finding import Options
from tests.conftest import Project
from tests.pipeline.commands.sources.conftest import BUCKET

SOURCE = "data/raw/digits.parquet"


@pytest.mark.soak
def test_a_source_on_s3_is_imported_and_updated(clone: Project, storage: Any) -> None:
    address = f"s3://{BUCKET}/digits.parquet"
    storage.upload_file(str(clone.path / SOURCE), BUCKET, "digits.parquet")
    clone.run("git", "rm", "--quiet", SOURCE)
    clone.run("dvc", "import-url", address, SOURCE)
    assert "stale" not in clone.run("reprise", "plan", "prepare").stdout
    changed = clone.path.parent / "changed.parquet"
    pl.read_parquet(clone.path / SOURCE).head(1500).write_parquet(changed)
    storage.upload_file(str(changed), BUCKET, "digits.parquet")
    clone.run("dvc", "update", f"{SOURCE}.dvc")
    plan = clone.run("reprise", "plan", "prepare").stdout
    assert "stale" in plan
    assert SOURCE in plan
    assert "hidden" not in (clone.path / f"{SOURCE}.dvc").read_text()
    # And a remote there, for what the stages write.
    remote = f"[core]\n    remote = store\n['remote \"store\"']\n    url = s3://{BUCKET}/dvc\n"
    (clone.path / ".dvc/config.local").write_text(remote)
    clone.run("dvc", "push", SOURCE)
    shutil.rmtree(clone.path / ".dvc/cache")
    (clone.path / SOURCE).unlink()
    clone.run("dvc", "pull", SOURCE)
    assert (clone.path / SOURCE).read_bytes() == changed.read_bytes()
    # The doctor writes a small file there, and leaves nothing.
    stored = storage.list_objects_v2(Bucket=BUCKET)["KeyCount"]
    with contextlib.chdir(clone.path):
        (found,) = remotes.check(Options(network=True))
    assert found.what == f"'store' (s3://{BUCKET}/dvc) can be read and written"
    assert storage.list_objects_v2(Bucket=BUCKET)["KeyCount"] == stored

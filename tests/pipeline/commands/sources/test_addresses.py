"""Addresses of objects: checked beforehand, told where they are wrong, and hidden where secret."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.params import object_heads
from pipeline.params.check import find_problems
from pipeline.params.object_heads import fetch_head
from stages.common.addresses import FETCHED, hide_secrets, is_plain_name, local_path, name_objects
from stages.common.errors import Problem, UserError
from stages.common.yamlfile import read_yaml
from stages.prepare.params import PrepareParams
from stages.runtime.object_storage import list_objects
from stages.tools.rehearse import find_schema_of
from tests.conftest import ROOT
from tests.pipeline.commands.sources.conftest import BUCKET
from tests.support.pipeline.objects import ONE, source_file


@pytest.fixture
def edited(
    storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Problem]]:
    """Find what `reprise check` says of another `prepare.source`."""
    storage.upload_file(str(source_file()), BUCKET, "digits.parquet")
    for name in ("params.yaml", "dvc.yaml", "None", "stages", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)

    def edit(source: str, **edits: Any) -> list[Problem]:
        tree = read_yaml(Path("params.yaml"))
        tree["prepare"] |= {"source": source} | edits
        return find_problems(tree)

    return edit


def test_a_check_knows_the_columns_of_an_object(
    edited: Callable[..., list[Problem]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edited(ONE) == []
    # Of a longer one the beginning and the end are enough.
    monkeypatch.setattr(object_heads, "SIDE_BYTES", 20_000)
    for old in FETCHED.glob("head-*"):
        shutil.rmtree(old)
    (problem,) = [each for each in edited(ONE, target="lable") if each.key == "prepare.target"]
    assert problem.message == f"{ONE} has no column 'lable'"
    assert problem.suggestion == "label"
    (head,) = FETCHED.glob("head-prepare.source-*/s3/*/*")
    assert head.stat().st_size == source_file().stat().st_size
    assert head.read_bytes() != source_file().read_bytes()


@pytest.mark.parametrize(
    ("source", "said", "meant"),
    [
        (f"s3://{BUCKET}/digit.parquet", "there is no object", ONE),
        ("s3://nowhere/digits.parquet", "there is no bucket s3://nowhere", None),
        (f"s3://{BUCKET}/none/", "there is no object", None),
        (f"s3://{BUCKET}/*.parquet", "an address has no '*'", None),
        (f"s3://me:secret@{BUCKET}/digits.parquet", "no user and no password", None),
        (f"s3://{BUCKET}/../digits.parquet", "an address is such as", None),
        (f"s3://KEY:a/secret@{BUCKET}/digits.parquet", "no user and no password", None),
        (f"s3://KEY:secret/{BUCKET}/digits.parquet", "no user and no password", None),
        (f"s3://{BUCKET}/digits.parquet?sig=secret", "an address has no '*', '?'", None),
        (f"s3://{BUCKET}/digits\n", "no line break", None),
        (f"S3://{BUCKET}/digits.parquet", "write s3://", None),
        ("gs://bucket/digits.parquet", "pip install --constraint constraints.txt dvc-gs", None),
    ],
)
def test_an_address_that_leads_nowhere_is_told_beforehand(
    edited: Callable[..., list[Problem]], source: str, said: str, meant: str | None
) -> None:
    (problem,) = [each for each in edited(source) if each.key == "prepare.source"]
    assert said in problem.message
    assert problem.suggestion == meant
    assert problem.value is None or problem.value == source
    assert "secret" not in str(UserError(problem))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer; AWS_ENDPOINT_URL is http"),
        ({"AWS_ENDPOINT_URL": "localhost:9000"}, "localhost:9000, without http:// or https://"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no keys for"),
    ],
)
def test_a_storage_that_gives_nothing_is_told_of(
    edited: Callable[..., list[Problem]],
    variables: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (problem,) = edited(ONE)
    assert said in problem.message
    assert problem.key == "prepare.source"


def test_a_check_of_images_under_a_prefix_reads_the_first(
    edited: Callable[..., list[Problem]], storage: Any
) -> None:
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        storage.put_object(Bucket=BUCKET, Key=f"pets/{name}", Body=content.getvalue())
    listing = list_objects(f"s3://{BUCKET}/pets/", "prepare.source")
    head = fetch_head(listing)
    # Two checks at once: what another one writes stays, what a dead one has left does not.
    living, dead = (head.parents[2].with_name(f"head-prepare.source-a-{n}") for n in (1, 4194305))
    living.mkdir()
    dead.mkdir()
    shutil.rmtree(head.parents[2])
    assert fetch_head(listing) == head
    assert (living.exists(), dead.exists()) == (True, False)
    assert [path.stat().st_size > 0 for path in sorted(head.rglob("*.png"))] == [True, False, False]
    section = {"source": str(head), "target": "label", "image": None}
    schema = find_schema_of(PrepareParams.model_construct(**section, pretrained=None))
    assert schema is not None
    assert schema.features[0].shape == [1, 8, 8]


def test_a_message_names_the_object_wherever_the_project_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "my project"
    here.mkdir()
    monkeypatch.chdir(here)
    path = here / local_path("prepare", ONE)
    assert name_objects(f"in {path}: no") == f"in {ONE}: no"


def test_secrets_are_hidden() -> None:
    assert hide_secrets("at https://me:a/b@c/d@host/x, no") == "at https://***@host/x, no"
    assert hide_secrets("azure://box/t.csv?sig=a%2F no") == "azure://box/t.csv?… no"


@pytest.mark.parametrize("name", ["../x.csv", "a//b.csv", "a/./b.csv", "/x.csv", "a\\b.csv"])
def test_a_name_that_leads_out_of_the_folder_is_no_file(name: str) -> None:
    assert not is_plain_name(name)

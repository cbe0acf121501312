"""The kind of a folder by the names in it: the rule that all readers go by."""

from pathlib import Path

import pytest

from pipeline.params.source_head import read_head
from stages.formats.folders.folder_kind import find_kind
from stages.formats.format import find_reader

IDX = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


@pytest.mark.parametrize(
    ("names", "kind", "reader"),
    [
        (IDX, "idx", "arrays"),
        ([*IDX, "t10k-images.idx3-ubyte", "README.md"], "idx", "arrays"),
        (["part-0.csv.gz", "part-1.csv.gz", "_SUCCESS", ".x.crc"], "shards", "shards"),
        (["manifest.csv"], "shards", "shards"),
        (["manifest.csv", "cat/1.png"], "manifest", "manifest"),
        (["Manifest.jsonl.zst", "1.png"], "manifest", "manifest"),
        (["manifest.txt", "cat/1.png"], "images", "image_folder"),
        (["part-0.csv", "cat/1.png"], "images", "image_folder"),
        ([], "images", "image_folder"),
    ],
)
def test_the_first_rule_that_fits_decides(
    tmp_path: Path, names: list[str], kind: str, reader: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_kind(tmp_path) == kind
    assert getattr(find_reader(tmp_path), "__name__", "").endswith(f".{reader}")


def test_the_check_of_params_goes_by_the_same_rule(tmp_path: Path) -> None:
    def columns() -> dict[str, str]:
        head = read_head(tmp_path)
        assert head is not None
        assert head.folder == find_kind(tmp_path)
        return dict(head.columns)

    (tmp_path / "manifest.csv").write_text("file,age\ncat/1.png,7\n")
    assert columns() == {"file": "text", "age": "whole"}
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        (tmp_path / part / "cat/1.png").touch()
    assert columns() == {"file": "text", "age": "whole"}
    (tmp_path / "manifest.csv").unlink()
    assert columns() == {"path": "text", "image": "array", "label": "text", "split": "text"}
    for name in (*IDX, "t10k-images-idx3-ubyte"):
        (tmp_path / name).touch()
    assert columns() == {"image": "array", "label": "whole", "split": "text"}

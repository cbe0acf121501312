"""A `params.yaml` that is read while somebody writes it."""

from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.common.params import declared_outs, read_params
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("size", "says"), [(0, "was being written just now"), (900, "the key 'build.model.name' is")]
)
def test_a_half_written_file_is_told_in_words(
    size: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dvc = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    Path("dvc.yaml").write_text(dvc.replace("data/tune/best.yaml", "data/${build.model.name}"))
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes()[:size])
    with pytest.raises(UserError, match=says):
        declared_outs("tune")
    with pytest.raises(UserError):
        read_params("tune")

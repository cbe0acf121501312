"""The list of files that `reprise init` has written, which may be damaged."""

from pathlib import Path

import pytest

from pipeline.params.drafts import DRAFTS, is_draft, write_draft


@pytest.mark.parametrize("content", [b"", b'{"params.yaml": "a', b"[]", b"\xff", b'{"a": 1}'])
def test_a_broken_list_is_none_and_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    DRAFTS.parent.mkdir()
    DRAFTS.write_bytes(content)
    path = Path("params.yaml")
    path.write_text("seed: 0", encoding="utf-8")
    assert not is_draft(path)
    write_draft(path, "seed: 1")
    assert is_draft(path)

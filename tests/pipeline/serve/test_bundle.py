"""How the model's runtime is loaded."""

import re
import sys
from pathlib import Path

import pytest

from pipeline.serve.bundle import import_onnxruntime
from tests.conftest import ROOT


def test_onnx_runtime_finds_its_telemetry_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it keeps when left alone differs from machine to machine: so a stand-in looks."""
    code = "import os\nseen = os.environ.get('ORT_DISABLE_TELEMETRY')\n"
    (tmp_path / "onnxruntime.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    del sys.modules["onnxruntime"]
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert import_onnxruntime().seen == "1"


def test_the_runtime_is_imported_in_one_place_alone() -> None:
    found = [
        path.name
        for path in (ROOT / "pipeline").rglob("*.py")
        if re.search(r"^ *import onnxruntime|^from onnxruntime", path.read_text(), re.MULTILINE)
    ]
    assert found == ["bundle.py"]

"""The kind of machine is recorded beside the model, and the report says where two sides differ."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.repo import Repo

from pipeline.report.build import Report
from pipeline.report.machine import KIND, differing_machines
from pipeline.report.markdown import as_markdown
from stages.train.kind import find_kind
from tests.conftest import ROOT

ASK = (
    "import json, torch; from stages.train.kind import find_kind;"
    "print(json.dumps(find_kind(torch.device('cpu'))))"
)


def test_what_the_libraries_choose_by_is_in_it() -> None:
    here = find_kind(torch.device("cpu"))
    limited = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        capture_output=True,
        text=True,
        check=True,
    )
    there = json.loads(limited.stdout)
    assert there["torch"] == "DEFAULT"
    assert there["ONEDNN_MAX_CPU_ISA"] == "SSE41"
    same = ("device", "architecture", "processor", "instructions")
    assert [here[name] for name in same] == [there[name] for name in same]
    assert all(here.values())


def test_the_report_says_where_they_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Repo.init(str(tmp_path), no_scm=True)

    def lock(content: dict[str, str], *, cached: bool = True) -> dict[str, Any]:
        text = json.dumps(content).encode()
        digest = hashlib.md5(text, usedforsecurity=False).hexdigest()
        if cached:
            with Repo(str(tmp_path)) as repo:
                file = Path(repo.cache.local.oid_to_path(digest))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        return {"train": {"outs": [{"path": KIND, "md5": digest}]}}

    before = lock({"device": "cpu", "torch": "AVX2"})
    after = lock({"device": "cpu", "torch": "AVX512", "MKL_CBWR": "COMPATIBLE"})
    found = differing_machines(before, after)
    assert found == {"torch": ("AVX2", "AVX512"), "MKL_CBWR": (None, "COMPATIBLE")}
    assert differing_machines(before, before) == {}
    # A side that does not record it, or whose file is not here, differs in nothing that is known.
    assert differing_machines({}, after) == {}
    assert differing_machines(lock({"torch": "SVE"}, cached=False), after) == {}
    said = as_markdown(Report("main", "0" * 40, {}, {}, (), {}, {}, machines=found))
    assert "Trained on machines of different kinds" in said
    assert "| torch | AVX2 | AVX512 |" in said
    assert "| MKL_CBWR | – | COMPATIBLE |" in said
    assert "different kinds" not in as_markdown(Report("main", "0" * 40, {}, {}, (), {}, {}))

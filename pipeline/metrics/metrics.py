"""The metrics that the stages have written, and how a number is shown."""

from pathlib import Path
from typing import Any

from stages.common.files import read_json
from stages.common.params import DVC_FILE
from stages.common.yamlfile import read_yaml

# From here on a number is short only with its exponent.
LARGE = 1e9


def read_metrics(folder: Path = Path()) -> dict[str, dict[str, Any]]:
    """The metrics that the stages of the `dvc.yaml` in `folder` have written, by stage."""
    found: dict[str, dict[str, Any]] = {}
    for name, stage in (read_yaml(folder / DVC_FILE).get("stages") or {}).items():
        for entry in stage.get("metrics", []) if isinstance(stage, dict) else []:
            path = folder / _path_of(entry)
            content = read_json(path) if path.suffix == ".json" and path.is_file() else None
            # A metric may be a bare number, which has no name.
            if isinstance(content, dict):
                found.setdefault(name, {}).update(content)
    return found


def _path_of(entry: Any) -> Path:
    return Path(next(iter(entry)) if isinstance(entry, dict) else entry)


def format_value(value: object) -> str:
    """A whole number as it is, another one to four places; large ones whole, tiny ones short."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if 1000 <= abs(value) < LARGE:
        return f"{value:.0f}"
    return f"{value:.4f}" if 0.01 <= abs(value) < 1000 or value == 0 else f"{value:.4g}"

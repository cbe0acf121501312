"""Outputs that lie in the DVC remote alone: their stage has run in a work pool.

`.reprise/elsewhere/<stage>.json` names them with their hashes. An output that is missing here is
then no reason to run its stage: whoever needs it pulls it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from pipeline.common.atomic import write_whole

FOLDER = Path(".reprise/elsewhere")


def read_remote_outputs() -> dict[str, str]:
    """The paths of outputs that a run in a work pool has pushed, each with its hash."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # cut short by a full disk: the stage counts as missing its outputs
        if isinstance(content, dict):
            found |= {str(name): str(digest) for name, digest in content.items()}
    return found


def note_remote_outputs(stage: str, outputs: Mapping[str, str]) -> None:
    """Keep the outputs of `stage` that its last run in a work pool has pushed. Raises OSError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{quote(stage, safe='@')}.json"
    write_whole(path, json.dumps(dict(outputs), indent=1, sort_keys=True) + "\n")

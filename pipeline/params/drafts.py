"""Files that `reprise init` has written: those that nobody has edited since may be written anew."""

import hashlib
import json
from pathlib import Path

from pipeline.common.atomic import write_whole

DRAFTS = Path(".reprise/drafts.json")


def write_draft(path: Path, text: str) -> None:
    """Write a file, and remember that it is a draft."""
    drafts = _read_drafts() | {path.as_posix(): _digest(text)}
    write_whole(path, text)
    DRAFTS.parent.mkdir(exist_ok=True)
    write_whole(DRAFTS, json.dumps(drafts, indent=2))


def is_draft(path: Path) -> bool:
    """Check whether a file stands as `reprise init` wrote it last."""
    digest = _read_drafts().get(path.as_posix())
    return path.exists() and _digest(path.read_text(encoding="utf-8")) == digest


def _read_drafts() -> dict[str, str]:
    """The digest of each draft by its path; a list that is damaged has none."""
    if not DRAFTS.exists():
        return {}
    try:
        drafts = json.loads(DRAFTS.read_bytes())
    except ValueError:
        return {}
    return drafts if isinstance(drafts, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()

"""Notes on sources that `params.yaml` may name, but whose versions are not what one may think."""

from pathlib import Path

from pipeline.commands.sources.snapshot import plain, read_snapshot
from stages.common.config import get_path
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml


def note_sources() -> list[str]:
    """A line for each source outside the repository, and for each with an outdated query."""
    tree, root, found = read_yaml(PARAMS), Path.cwd().resolve(), []
    for key in ("prepare.source", "infer.input"):
        value = get_path(tree, key)
        if not isinstance(value, str):
            continue
        source = Path(value)
        # A link that stands in the repository is the user's own way to bring data in.
        if not (root / source.parent).resolve().is_relative_to(root):
            found.append(
                f"note: {source} lies outside the repository, where DVC keeps no version of it: "
                f"'reprise init {source} --target COLUMN' says how to bring it in"
            )
        known = read_snapshot(source)
        query = None if known is None else Path(known.query)
        if known is None or query is None or not query.is_file():
            continue
        if plain(query.read_text(encoding="utf-8")) != plain(known.sql):
            found.append(
                f"note: {source} has the rows of an earlier {query}: reprise import-query {query}"
            )
    return found

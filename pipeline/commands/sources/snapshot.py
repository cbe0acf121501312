"""The origin of a snapshot's rows, as its `.dvc` file tells it."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.common.atomic import write_whole
from stages.common.yamlfile import read_yaml


@dataclass(frozen=True)
class Snapshot:
    """The file of the query, its text, the variable with the address, the rows, and when."""

    query: str
    sql: str
    variable: str
    rows: int
    taken: str

    def is_as(self, other: "Snapshot | None") -> bool:
        """Check whether the same was asked of the same database."""
        if other is None:
            return False
        asked = (self.query, plain(self.sql), self.variable)
        return asked == (other.query, plain(other.sql), other.variable)

    def write(self, output: Path) -> None:
        """Write it as `meta` into the `.dvc` file of `output`, which keeps all else."""
        from ruamel.yaml import YAML
        from ruamel.yaml.scalarstring import LiteralScalarString

        path = Path(f"{output}.dvc")
        yaml = YAML()
        tree = yaml.load(path.read_text(encoding="utf-8"))
        text = LiteralScalarString(plain(self.sql))
        tree.setdefault("meta", {})["snapshot"] = asdict(self) | {"sql": text}
        written = io.StringIO()
        yaml.dump(tree, written)
        write_whole(path, written.getvalue())


def plain(sql: str) -> str:
    """The text of a query without blanks at the ends of its lines."""
    return "".join(f"{line.rstrip()}\n" for line in sql.strip().splitlines())


def read_snapshot(output: Path) -> Snapshot | None:
    """The origin of a snapshot; None: `output` is none."""
    path = Path(f"{output}.dvc")
    tree: Any = read_yaml(path) if path.exists() else {}
    found: Any = ((tree or {}).get("meta") or {}).get("snapshot")
    try:
        return Snapshot(**found)
    except TypeError:
        # Of somebody else's, or of nobody's.
        return None

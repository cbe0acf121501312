"""What a run depends on, as one short name: the same files and values that DVC looks at."""

import hashlib
import json

from stages.common.files import md5
from stages.common.params import PARAMS, VERSIONS, declared, declared_deps
from stages.common.section import subtree
from stages.common.yamlfile import read_yaml


def fingerprint(stage: str) -> str:
    """Sixteen hexadecimal digits of the declared dependencies, parameters and library versions."""
    digest = hashlib.sha256()
    for file in (PARAMS, VERSIONS):
        tree = read_yaml(file)
        values = {key: subtree(tree, key) for key in declared(stage, file)}
        digest.update(json.dumps(values, sort_keys=True).encode())
    for path in declared_deps(stage):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.as_posix()} {md5(file)}\n".encode())
    return digest.hexdigest()[:16]

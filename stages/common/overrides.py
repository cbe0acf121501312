"""Values for parameters by their path: what tune tries, and what train takes from the winner."""

import copy
from collections.abc import Mapping
from typing import Any

Overrides = dict[str, Any]


def apply_overrides(
    tree: Mapping[str, Any], overrides: Mapping[str, Any], section: str
) -> dict[str, Any]:
    """A copy of `tree`, the section `section`, with the overrides of that section set.

    Paths start with the section's name: `train.optimizer.lr`. Those of other sections are left.
    """
    changed = copy.deepcopy(dict(tree))
    for path, value in overrides.items():
        first, *parents, last = path.split(".")
        if first != section:
            continue
        node = changed
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed

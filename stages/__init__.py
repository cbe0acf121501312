"""The machine learning: one folder a stage, each started as `python -m stages.<name>`.

The folders below have no `__init__.py`: it would be a dependency of every stage, and hold nothing.
"""

import sys

# A stage, or a process that trains for one. This comes before any other module, so that
# what they open while they are imported is seen as well.
if sys.orig_argv[1:2] == ["-m"] and (
    sys.orig_argv[2].count(".") == 1 or sys.orig_argv[2] == "stages.train.worker"
):
    from stages.runtime.audit import audit_process

    audit_process()

"""Brings the inputs of a stage here that only DVC's remote has: `python -m …fetch STAGE`.

Run under the supervisor of a run, before a stage that runs here after one that ran elsewhere.
"""

import sys

from pipeline.common.dvc_repo import open_repo
from pipeline.common.git import hide_secrets
from pipeline.elsewhere.data import missing_inputs, pull
from stages.common.errors import UserError, format_problem


def main() -> None:
    """Pull what is missing of the inputs; a mistake is one screen of text."""
    stage = sys.argv[1]
    try:
        with open_repo(wait=True) as repo:
            missing = missing_inputs(repo, stage)
            if missing:
                print(f"dvc pull {' '.join(missing)}", flush=True)
            pull(repo, missing)
    except UserError as error:
        print(f"\nthe inputs of {stage} could not be fetched from DVC's remote")
        for problem in error.problems:
            print(hide_secrets(format_problem(problem)))
        sys.exit(1)


if __name__ == "__main__":
    main()

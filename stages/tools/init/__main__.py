"""The findings of `reprise init`, as JSON: `python -m stages.tools.init PATH --target COLUMN`.

It writes no file. What is wrong is told on standard error, and ends with 1.
"""

import argparse
import json
import sys
from dataclasses import replace

from stages.common.addresses import name_objects
from stages.common.errors import UserError, format_problem
from stages.tools.init.options import Options, found_as_options, name_option
from stages.tools.init.survey import survey

# Keys that are no parameter, since there is no params.yaml yet that names the file.
SOURCES = ("PATH", "prepare.source")


def main() -> None:
    """Print the findings, or what is wrong."""
    parser = argparse.ArgumentParser(prog="reprise init")
    parser.add_argument("source")
    parser.add_argument("--target", required=True)
    for name in ("task", "key", "time", "group", "weight"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--column", action="append", default=[], dest="columns")
    try:
        found = found_as_options(survey(Options(**vars(parser.parse_args()))))
    except UserError as error:
        for problem in error.problems:
            plain = name_option(problem)
            plain = replace(plain, key=None) if plain.key in SOURCES else plain
            print(name_objects(format_problem(plain)), file=sys.stderr)
        sys.exit(1)
    print(json.dumps(found, ensure_ascii=False, default=str))


if __name__ == "__main__":
    main()

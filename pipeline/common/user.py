"""A user whom this machine has no entry for, as in a container that was given a bare number.

Python finds such a user's name and home in the environment alone, and DVC and Prefect end with a
traceback where it does not.
"""

import getpass
import os
from pathlib import Path

from stages.common.errors import UserError


def know_user() -> None:
    """Give this process's environment, and so what it starts, a name where the user has none.

    Raises UserError when there is no home: settings and caches would have to go somewhere.
    """
    try:
        Path.home()
    except RuntimeError:
        raise UserError(
            f"HOME is not set, and this machine knows no home of user {os.getuid()}\n"
            "  set it to a folder that this user can write: export HOME=/tmp/home"
        ) from None
    try:
        getpass.getuser()
    except (KeyError, OSError):  # by the version of Python
        # DVC names a folder for its sockets by it; 'dvc repro' alone wants it set by hand.
        os.environ["USER"] = f"user-{os.getuid()}"

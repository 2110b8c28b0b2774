"""Whose account this process runs under."""

from __future__ import annotations

import getpass
import os


def account_name() -> str:
    """The account's name by its number; not what ``LOGNAME`` or ``USER`` says, which anybody sets to be somebody else.

    The number itself where it has no name, as a container's user.
    """
    try:
        import pwd
    except ModuleNotFoundError:  # not every system has such a list
        return getpass.getuser()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

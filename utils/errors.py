# SPDX-License-Identifier: Apache-2.0
"""Errors that speak to the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: one line that names the file or flag, what is wrong and what to do.

    The entry points print it on stderr and exit with code 2; it never becomes a traceback.
    """


class NothingToDo(Exception):  # noqa: N818 - it is none
    """What was asked for is already done: the entry points say so and exit with code 0."""

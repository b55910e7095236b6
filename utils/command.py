# SPDX-License-Identifier: Apache-2.0
"""What the entry points share: strict flags with a helpful word, and errors of one line with exit code 2."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .errors import NothingToDo, UserError


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, that names the flag which was probably meant."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse all of `args`; UserError for anything unknown."""
        settings, unknown = super().parse_known_args(args)
        if unknown:
            raise UserError(f"{unknown[0]}: not known{self._suggestion(unknown[0])}; see --help")
        return settings

    def error(self, message: str) -> NoReturn:
        """Usage errors are the user's to mend, in one line."""
        raise UserError(f"{message}; see --help")

    def _suggestion(self, flag: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        nearest = difflib.get_close_matches(flag.split("=")[0], known, n=1, cutoff=0.5)
        return f", did you mean {nearest[0]}" if flag.startswith("-") and nearest else ""


def run_command(main: Callable[[Sequence[str]], None], args: Sequence[str] | None = None) -> int:
    """Run an entry point on the command line's arguments and return its exit code."""
    try:
        code = _exit_code(main, sys.argv[1:] if args is None else args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone; nothing may be flushed there at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _exit_code(main: Callable[[Sequence[str]], None], args: Sequence[str]) -> int:
    try:
        main(args)
    except UserError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 2
    except NothingToDo as notice:
        print(notice)
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:  # argparse after --help
        return int(end.code or 0)
    return 0

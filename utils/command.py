# SPDX-License-Identifier: Apache-2.0
"""What the entry points share: strict flags with a helpful word, and errors of one line with exit code 2."""

import argparse
import difflib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import NoReturn

from .errors import NothingToDo, UserError, machine_failure

LONGEST_LINE = 1000
"""Characters of a message; names of files may be as long as a page."""


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, that names the flag which was probably meant."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)
        self._given: Sequence[str] = ()

    def parse_args(self, args: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse all of `args`; UserError for anything unknown."""
        self._given = sys.argv[1:] if args is None else args
        settings, unknown = super().parse_known_args(args)
        if unknown:
            raise self._unknown(unknown[0])
        return settings

    def error(self, message: str) -> NoReturn:
        """Usage errors are the user's to mend, in one line; a required flag is missing where it is misspelt."""
        if "required" in message:
            for flag in self._given:
                if flag.startswith("--") and flag.split("=")[0] not in self._option_string_actions:
                    raise self._unknown(flag)
        raise UserError(f"{message}; see --help")

    def _unknown(self, flag: str) -> UserError:
        nearest = difflib.get_close_matches(flag.split("=")[0], self._option_string_actions, n=1, cutoff=0.5)
        meant = f", did you mean {nearest[0]}" if flag.startswith("-") and nearest else ""
        return UserError(f"{flag}: not known{meant}; see --help")


def run_command(main: Callable[[Sequence[str]], None], args: Sequence[str] | None = None) -> int:
    """Run an entry point on the command line's arguments and return its exit code."""
    with _ctrl_c_raises():
        try:
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
            code = _exit_code(main, sys.argv[1:] if args is None else args)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has gone; nothing may be flushed there at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        return code


@contextmanager
def _ctrl_c_raises() -> Iterator[None]:
    """Within the block Ctrl-C is Python's, unless the process was told to ignore it, as by nohup."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)  # nor a traceback from the interpreter's last moments


def _exit_code(main: Callable[[Sequence[str]], None], args: Sequence[str]) -> int:
    try:
        main(args)
    except UserError as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    except NothingToDo as notice:
        print(one_line(str(notice)))
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:  # argparse after --help
        return int(end.code or 0)
    except Exception as error:
        line = machine_failure(error)
        if line is None:
            raise
        print(one_line(line), file=sys.stderr)
        return 2
    return 0


def one_line(text: str) -> str:
    """A text that may hold names from outside as a terminal can take it: no breaks, no control sequences, bounded."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"

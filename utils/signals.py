# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C as a request: the first one waits for the end of a step, the second one does not.

A terminal that closes (SIGHUP) asks likewise; there is nobody left to print to then.
"""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Within the block, `asked` says whether a signal has come; a second one raises KeyboardInterrupt.

    One of several processes is not `alone`: there a signal is `heard`, and `asked` is set when all know of it.
    """

    def __init__(self, *, alone: bool = True, quiet: bool = False) -> None:
        self.alone, self._quiet = alone, quiet
        self.heard = self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals to no other
            heard = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]  # nohup
            self._before = {one: signal.signal(one, self._receive) for one in heard}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _print_nowhere()  # kernel and shell each send one, so it never counts as the second
        elif self.heard:
            raise KeyboardInterrupt
        self.heard, self.asked = True, self.asked or self.alone
        if not self._quiet:
            print("\nStopping after this step; once more stops at once.", file=sys.stderr)


def _print_nowhere() -> None:
    """From here on what is printed is lost, where it would be an error of the terminal that is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)

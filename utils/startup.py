# SPDX-License-Identifier: Apache-2.0
"""The seconds before `run_command`, in which large packages are imported: no traceback either.

An entry point begins, before it imports anything large, with

    if __name__ == "__main__":
        from utils.startup import quiet_imports

        quiet_imports()
"""

import resource
import signal
import sys
from types import TracebackType

from .errors import machine_failure

LEAST_MEMORY = 1 << 30
"""Bytes of address space without which numpy and torch cannot be loaded; OpenBLAS would end the process its own way."""


def quiet_imports() -> None:
    """Let Ctrl-C end the process without a word, and missing packages and memory with one line and exit code 2."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < LEAST_MEMORY:
        print(f"ulimit -v {limit >> 10}: too little to load torch; allow {LEAST_MEMORY >> 10} or more", file=sys.stderr)
        sys.exit(2)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # run_command takes it back
    sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = machine_failure(error)
    if line is None and isinstance(error, ModuleNotFoundError):
        line = f"{error.name}: not installed for {sys.executable}; run `make setup` and start with .venv/bin/python"
    if line is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(line, file=sys.stderr)
    sys.exit(2)  # the interpreter itself would exit with 1

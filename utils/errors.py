# SPDX-License-Identifier: Apache-2.0
"""Errors that speak to the person at the keyboard."""

import errno


class UserError(Exception):
    """Something the user can mend: one line that names the file or flag, what is wrong and what to do.

    The entry points print it on stderr and exit with code 2; it never becomes a traceback.
    """


class NothingToDo(Exception):  # noqa: N818 - it is none
    """What was asked for is already done: the entry points say so and exit with code 0."""


MEMORY = (
    *("DefaultCPUAllocator", "bad_alloc", "Insufficient memory", "OutOfMemoryError", "can't start new thread"),
    *("annot allocate memory", "failed to map segment", "Resource temporarily unavailable"),
)
"""How torch, OpenCV, the C++ library and the loader say that there is no memory left."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""Errors of the operating system that are the storage's."""


def machine_failure(error: BaseException) -> str | None:
    """One line for what is no bug but the end of what the machine has: memory, disk, open files; else None."""
    number = getattr(error, "errno", None)
    if isinstance(error, RuntimeError) and "CUDA" in str(error):
        return _card_failure(str(error))
    if isinstance(error, OSError) and number in DISK:
        return f"{error.filename or 'the disk'}: {error.strerror}; free space or choose another place, then --resume"
    if isinstance(error, OSError) and number in (errno.EMFILE, errno.ENFILE):
        return f"{error.filename or 'the system'}: too many open files; raise `ulimit -n`"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in str(error) for words in MEMORY):
        return (
            "out of memory: close other programs, or give a larger --resolution divisor or a smaller --cap_max; "
            "a run that has a checkpoint goes on with --resume"
        )
    return None


def _card_failure(said: str) -> str:
    """torch and our kernels begin with `CUDA out of memory`, `CUDA error: ...` or `CUDA, <stage>: ...`."""
    if "out of memory" in said:
        return (
            "out of memory on the card: end other programs there, or give a larger --resolution divisor (-r), a "
            "smaller --cap_max, --data_device cpu or a smaller --cache_gb; a run that has a checkpoint goes on with "
            "--resume"
        )
    reason = said.strip().partition("\n")[0]
    return f"the card failed ({reason}); a run that has a checkpoint goes on with --resume, also with --backend cpu"

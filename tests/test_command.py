# SPDX-License-Identifier: Apache-2.0
"""However an entry point ends, its exit code and what it prints are for people."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.command import Parser, run_command
from utils.errors import NothingToDo, UserError

ROOT = Path(__file__).resolve().parents[1]


def ends_with(error: BaseException | None) -> int:
    def main(args) -> None:
        if error is not None:
            raise error

    return run_command(main, [])


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 0), (UserError("--x: bad"), 2), (NothingToDo("done"), 0), (KeyboardInterrupt(), 130), (SystemExit(0), 0)],
)
def test_exit_codes_tell_how_it_ended(error, code):
    assert ends_with(error) == code


def test_errors_are_one_line_on_stderr_and_notices_one_on_stdout(capsys):
    ends_with(UserError("--source: no\nsuch folder"))
    ends_with(NothingToDo("nothing left to do"))
    assert capsys.readouterr() == ("nothing left to do\n", "--source: no such folder\n")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "M/log.jsonl"), "M/log.jsonl: No space left"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    ],
)
def test_the_end_of_what_the_machine_has_is_one_line(capsys, error, word):
    assert ends_with(error) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1


def test_a_name_from_outside_cannot_steer_the_terminal(capsys):
    ends_with(UserError("\x1b[2Ja\u202eb\udcff.jpg:\r\nbad"))
    assert capsys.readouterr().err == "\\x1b[2Ja\\u202eb\\udcff.jpg:  bad\n"


@pytest.mark.parametrize("entry", ["train.py", "render.py", "metrics.py"])
def test_ctrl_c_while_packages_are_imported_leaves_no_traceback(entry, tmp_path):
    (tmp_path / "numpy.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, ROOT / entry],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("code", "word"),
    [("import no_such_package", "no_such_package: not installed"), ("raise MemoryError", "out of memory")],
)
def test_a_missing_package_or_memory_is_one_line_while_importing(code, word):
    script = f"from utils.startup import quiet_imports; quiet_imports(); {code}"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2 and word in process.stderr and process.stderr.count("\n") == 1


@pytest.mark.parametrize("entry", ["train.py", "render.py", "metrics.py"])
def test_a_limit_of_memory_that_is_too_low_is_one_line(entry):
    command = f"ulimit -v 600000; exec {sys.executable} {ROOT / entry} -m M"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("ulimit -v 600000: too little") and process.stderr.count("\n") == 1


def test_bugs_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        ends_with(ZeroDivisionError())


@pytest.fixture
def parser() -> Parser:
    parser = Parser("A test.")
    parser.add_argument("--model_path", required=True)
    parser.add_argument("--skip_train", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model_path M --skip_trian", "--skip_trian: not known, did you mean --skip_train"),
        ("--model_path M --skip", "--skip: not known"),
        ("--model_pth=M", "--model_pth=M: not known, did you mean --model_path"),
        ("--skip_train", "the following arguments are required: --model_path"),
        ("--model_path M stray", "stray: not known"),
        ("--model_path", "expected one argument"),
    ],
)
def test_what_is_not_known_is_named(parser, line, message):
    with pytest.raises(UserError, match=message):
        parser.parse_args(line.split())


def test_a_reader_that_leaves_early_causes_no_traceback():
    script = "import sys; from utils.command import run_command; sys.exit(run_command(lambda _: print('x')))"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep(0.3); {script}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (141, "")

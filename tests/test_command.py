# SPDX-License-Identifier: Apache-2.0
"""However an entry point ends, its exit code and what it prints are for people."""

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
        ("--model_pth=M", "the following arguments are required: --model_path"),
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

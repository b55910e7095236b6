# SPDX-License-Identifier: Apache-2.0
"""Several views in a step, and several processes that share them: the same bytes, one writer, one end."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny
import torch

from gaussian_renderer import render
from phases.fastgs import FastGS
from phases.ranks import ADDED_TO
from phases.state import Step
from scene.gaussian_model import PARAMETERS
from tests.scenes.small_capture import write_capture
from tests.test_train_cli import figures, trained
from train import train_step
from utils import checkpoint

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--num_points", 60, "--vlm_views", 3, "--quiet", "--threads", 1, "--checkpoint_every", 9)
ALL_PHASES = (*SMALL, "--iterations", 24, "--views_per_step", 2)
DENSE = ("--phases", "none", "--densification_interval", 4, "--densify_from_iter", 2, "--random_background")
PLAIN = (*SMALL, *DENSE, "--iterations", 40, "--views_per_step", 4)


def state_with(path: Path, views: int, **optim):
    return tiny.state(path, tiny.config(path, optim={"views_per_step": views} | optim))


def by_hand(state, phase, views) -> dict[str, torch.Tensor]:
    """Gradients and statistics that views add to a state's rows, which stay as they are."""
    rows = state.gaussians.rows
    for camera, background in views:
        output = render(camera, state.gaussians, background, mult=state.mult)
        step = Step(1, camera, camera.image(), camera.mask(), output)
        sum(phase.loss(state, step).values()).backward()
        state.density.gather(state.gaussians, step)
    added = {name: rows[name].grad for name in PARAMETERS} | {name: rows[name].clone() for name in ADDED_TO}
    for name in PARAMETERS:
        rows[name].grad = None
    for name in ADDED_TO:
        rows[name].zero_()
    return added


@pytest.fixture
def phase() -> FastGS:
    fastgs = FastGS()
    fastgs.length = 100
    return fastgs


def test_a_step_of_two_views_follows_the_mean_of_their_gradients(tmp_path, phase):
    state, other = state_with(tmp_path / "A", 2, step_every=1), state_with(tmp_path / "B", 2)
    first, second = other.next_views()
    added = [by_hand(other, phase, [view]) for view in (first, second)]
    train_step(state, phase)
    for name in PARAMETERS:  # Adam's first mean is a tenth of the gradient
        mean = (added[0][name] + added[1][name]) / 2
        torch.testing.assert_close(state.gaussians.rows[f"{name}.exp_avg"], 0.1 * mean, rtol=1e-4, atol=1e-9)


def test_statistics_of_two_views_are_those_of_two_steps(tmp_path, phase):
    state, other = state_with(tmp_path / "A", 2), state_with(tmp_path / "B", 2)
    both = by_hand(other, phase, other.next_views())
    train_step(state, phase)
    assert both["seen"].max() == 2
    for name in ADDED_TO:
        assert torch.equal(state.gaussians.rows[name], both[name])


def test_the_loss_of_a_step_is_the_mean_of_its_views(tmp_path, phase):
    state = state_with(tmp_path / "A", 3)
    judged = iter([1.0, 2.0, 6.0])
    phase.loss = lambda state, step: {"image": step.output.image.sum() * 0 + next(judged)}
    assert train_step(state, phase) == {"image": 3.0}


@pytest.mark.parametrize("views", [2, 25])
def test_views_come_in_the_order_of_single_steps_also_when_there_are_fewer_than_asked_for(tmp_path, views):
    single, several = state_with(tmp_path / "A", 1), state_with(tmp_path / "B", views)
    drawn = [view for _ in range(2) for view in several.next_views()]
    one_by_one = [single.next_views()[0] for _ in drawn]
    assert [camera.name for camera, _ in drawn] == [camera.name for camera, _ in one_by_one]


DRIVER = """
import json, os, shutil, sys
import torch.distributed as dist
import torch.utils.tensorboard  # once, here
import train
from utils.command import run_command
from utils.errors import UserError

def strike(count, number):
    # Before the count-th step a signal comes, or for 0 an error.
    original = train.train_step
    def step(state, phase):
        nonlocal count
        count -= 1
        if count == 0 and number:
            os.kill(os.getpid(), number)
        if count == 0 and not number:
            raise UserError("00.png: cannot be read")
        return original(state, phase)
    train.train_step = step

def tell_of_writing(folder):
    def heard(event, args):
        writing = event in ("os.mkdir", "os.remove", "os.rename") or event == "open" and args[2] & (1 | 2 | 64)
        if writing and str(args[0]).startswith(folder):
            os.write(2, f"wrote {args[0]}\\n".encode())
    sys.addaudithook(heard)

for processes, said, origin, folder, strikes, argv in json.load(sys.stdin):
    if origin:
        shutil.copytree(origin, folder)
    store, children = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False), []
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    for rank in range(processes):
        children.append(os.fork())
        if children[-1]:
            continue
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(2, 1)
        place |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        os.environ.update({name: str(value) for name, value in place.items()})
        if rank:
            tell_of_writing(folder)
        if str(rank) in strikes:
            strike(*strikes[str(rank)])
        code = 1
        try:
            code = run_command(train.main, argv)
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
"""
"""Does as torchrun does, without importing torch for every process anew."""


@dataclass(frozen=True)
class Job:
    """Processes that train together; by rank the step before which a signal strikes, and which; the flags."""

    processes: int
    flags: tuple
    strikes: dict[int, tuple[int, int]] = field(default_factory=dict)
    after: str | None = None
    """The job whose run is resumed."""


@dataclass(frozen=True)
class Ended:
    """What a group of processes left behind."""

    codes: list[int]
    said: str
    folder: Path


JOBS = {
    "all phases, one": Job(1, ALL_PHASES),
    "all phases, two": Job(2, ALL_PHASES),
    "plain, one": Job(1, PLAIN),
    "plain, two": Job(2, PLAIN),
    "asked to stop": Job(2, PLAIN, {1: (13, signal.SIGTERM)}),
    "killed": Job(2, PLAIN, {1: (22, signal.SIGKILL)}),
    "first killed": Job(2, PLAIN, {0: (22, signal.SIGKILL)}),
    "stopped, then one": Job(1, ("--resume",), after="asked to stop"),
    "stopped, then four": Job(4, ("--resume",), after="asked to stop"),
    "killed, then two": Job(2, ("--resume",), after="killed"),
    "one fails": Job(2, PLAIN, {1: (3, 0)}),
    "odd": Job(2, (*SMALL, "--views_per_step", 3)),
    "too few": Job(2, SMALL),
    "none": Job(2, (*SMALL, "--views_per_step", 0)),
    "changed": Job(2, ("--resume", "--views_per_step", 2), after="killed"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def groups(data, tmp_path_factory) -> dict[str, Ended]:
    """All jobs, one after the other."""
    base = tmp_path_factory.mktemp("groups")
    runs = {name: base / name.replace(" ", "_") for name in JOBS}
    lines = []
    for name, job in JOBS.items():
        argv = ["-m", runs[name], "-s", data, *job.flags]
        origin = str(runs[job.after]) if job.after else ""
        said = f"{runs[name]}.said"
        lines.append([job.processes, said, origin, str(runs[name]), job.strikes, [str(word) for word in argv]])
    command = [sys.executable, "-c", DRIVER]
    driver = subprocess.run(command, cwd=ROOT, input=json.dumps(lines), capture_output=True, text=True, check=True)
    codes = [[int(word) for word in line.split()] for line in driver.stdout.splitlines()]
    said = [Path(f"{run}.said").read_text() for run in runs.values()]
    return {name: Ended(*one) for name, one in zip(JOBS, zip(codes, said, runs.values(), strict=True), strict=True)}


@pytest.mark.parametrize("run", ["all phases", "plain"])
def test_two_processes_train_what_one_does_to_the_last_byte(groups, run):
    one, two = groups[f"{run}, one"], groups[f"{run}, two"]
    assert (one.codes, two.codes) == ([0], [0, 0]), two.said
    assert trained(two.folder) == trained(one.folder)
    assert figures(two.folder) == figures(one.folder)


def test_the_runs_that_are_compared_densify_and_inspect(groups):
    lines = [json.loads(line) for line in (groups["all phases, two"].folder / "log.jsonl").read_text().splitlines()]
    assert {line.get("phase") for line in lines} >= {"main", "ambient", "vlm"}
    assert any(line.get("masked_views") for line in lines)
    sizes = {len(rows["means"]) for rows in map(rows_of, checkpoint.checkpoints(groups["plain, two"].folder).values())}
    assert sizes != {60}


def rows_of(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).payload["state"]["rows"]


def test_only_the_first_process_writes_or_speaks(groups):
    assert groups["all phases, two"].said == ""  # the driver has the second one tell of every file


@pytest.mark.parametrize("name", ["stopped, then one", "stopped, then four", "killed, then two"])
def test_what_was_interrupted_goes_on_with_any_number_of_processes(groups, name):
    again = groups[name]
    assert set(again.codes) == {0}, again.said
    assert trained(again.folder) == trained(groups["plain, one"].folder)


def test_whoever_is_asked_to_stop_all_stop_after_the_same_step(groups):
    stopped = groups["asked to stop"]
    assert stopped.codes == [130, 130] and "Traceback" not in stopped.said
    assert "Stopped after iteration 13. Continue with" in stopped.said
    assert list(checkpoint.checkpoints(stopped.folder)) == [13, 9]


@pytest.mark.parametrize(("name", "codes"), [("killed", [2, -9]), ("first killed", [-9, 2])])
def test_a_killed_process_ends_the_other_with_one_line(groups, name, codes):
    (line,) = groups[name].said.splitlines()
    assert groups[name].codes == codes
    assert "another process of this training has ended without a word" in line and "--resume" in line
    assert list(checkpoint.checkpoints(groups[name].folder)) == [18, 9]


def test_the_error_of_one_process_is_told_once_and_ends_all(groups):
    assert groups["one fails"].codes == [2, 2]
    assert groups["one fails"].said == "00.png: cannot be read\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("odd", "--views_per_step 3: 2 processes share them evenly; give 4\n"),
        ("too few", "--views_per_step 1: 2 processes share them evenly; give 2\n"),
        ("none", "--views_per_step 0: must be at least 1\n"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_one_line(groups, name, line):
    assert groups[name].codes == [2, 2]
    assert groups[name].said == line
    assert not groups[name].folder.exists()


def test_views_per_step_cannot_be_changed_when_a_run_is_resumed(groups):
    assert groups["changed"].codes == [2, 2]
    assert groups["changed"].said.startswith("--views_per_step 2: the run to continue has 4; leave the flag out")


def test_torchrun_starts_it(groups, data, tmp_path):
    words = ["train.py", "-s", data, "-m", tmp_path / "M", *PLAIN, "--no_quiet"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Output folder:") == 1
    assert trained(tmp_path / "M") == trained(groups["plain, one"].folder)

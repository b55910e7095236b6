# SPDX-License-Identifier: Apache-2.0
"""train.py from the command line: it ends well, or with one line; what was interrupted goes on to the same bytes."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import metrics
import render
import train
from scene.model_folder import load_model
from tests.scenes.small_capture import write_capture
from utils import checkpoint
from utils.command import run_command

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS = 40
SMALL = ("--iterations", ITERATIONS, "--checkpoint_every", 9, "--num_points", 60, "--vlm_views", 3, "--quiet")
TRICKY = ("--phases", "none", "--random_background", "--densification_interval", 4, "--densify_from_iter", 2)


def run(*words: object) -> int:
    """The exit code of train.py in this process."""
    return run_command(train.main, [str(word) for word in words])


def trained(folder: Path) -> dict[str, bytes]:
    """The files that must not depend on how a run came about."""
    paths = [*folder.glob("point_cloud/**/*.*"), *folder.glob("vlm/**/audit.jsonl")]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    for path in folder.glob("chkpnt*.pth"):
        with zipfile.ZipFile(path) as archive:  # torch's own number of an archive may differ between processes
            names = [name for name in archive.namelist() if not name.endswith("serialization_id")]
            files |= {f"{path.name}/{name}": archive.read(name) for name in names}
    return files


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def figures(folder: Path) -> list[dict]:
    """The log's figures, without its clocks."""
    lines = [line for line in log(folder) if "loss" in line or "psnr" in line]
    return [{name: value for name, value in line.items() if name not in ("it_per_s", "elapsed")} for line in lines]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run of all phases that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run("-s", data, "-m", folder, *SMALL) == 0
    return folder


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """A run of plain FastGS that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    assert run("-s", data, "-m", folder, *SMALL, *TRICKY) == 0
    return folder


def test_a_run_leaves_the_folder_that_the_field_knows(whole):
    files = {path.name for path in whole.iterdir()}
    assert {"cfg_args", "cameras.json", "input.ply", "config.json", "log.jsonl", "point_cloud"} <= files
    assert (whole / "point_cloud" / f"iteration_{ITERATIONS}" / "point_cloud.ply").is_file()
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert list(checkpoint.checkpoints(whole)) == [ITERATIONS, 36]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_first_held_out_views(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole)).Reload()
    assert {"test_view_00.png/render", "test_view_00.png/ground_truth"} <= set(events.Tags()["images"])
    scalars = {f"{split}/loss_viewpoint - {name}" for split in ("test", "train") for name in ("l1_loss", "psnr")}
    losses = {"train_loss_patches/l1_loss", "train_loss_patches/total_loss"}
    assert scalars | losses <= set(events.Tags()["scalars"])
    assert events.Tags()["histograms"] == ["scene/opacity_histogram"]


def test_the_log_tells_of_every_tenth_iteration_and_the_last_test(whole):
    figures = [line["iteration"] for line in log(whole) if "loss" in line]
    assert set(range(10, ITERATIONS + 1, 10)) <= set(figures)
    tests = [line for line in log(whole) if "psnr" in line]
    assert tests[-1]["iteration"] == ITERATIONS and tests[-1]["psnr"] > 5


@pytest.mark.parametrize(("other", "mult"), [("whole", 1.0), ("plain", 0.5)])
def test_a_model_says_how_far_its_gaussians_reach_and_is_drawn_so(tmp_path, request, other, mult):
    folder = shutil.copytree(request.getfixturevalue(other), tmp_path / "M")
    assert load_model(folder).splats.tags["mult"] == mult
    for command, more in ((render, ("--skip_train",)), (metrics, ())):
        assert run_command(command.main, ["-m", str(folder), "--quiet", *more]) == 0
    (measured,) = json.loads((folder / "results.json").read_text()).values()
    told = [line["psnr"] for line in log(folder) if line.get("split") == "test"]
    assert measured["PSNR"] == pytest.approx(told[-1], abs=0.02)


def test_the_dataset_is_never_written_to(data, tmp_path):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data.rglob("*")}
    assert run("-s", data, "-m", tmp_path / "M", *SMALL, *TRICKY, "--iterations", 3) == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data.rglob("*")} == before


@pytest.mark.parametrize("phases", ["none", "main", "main,ambient", "main,ambient,vlm"])
def test_every_choice_of_phases_trains_exactly_the_iterations(data, tmp_path, phases):
    assert run("-s", data, "-m", tmp_path / "M", *SMALL, "--iterations", 23, "--phases", phases) == 0
    figures = [line for line in log(tmp_path / "M") if "loss" in line]
    assert figures[-1]["iteration"] == 23
    named = list(dict.fromkeys(line["phase"] for line in figures))
    wanted = [] if phases == "none" else phases.split(",")
    assert named == (wanted if len(wanted) == 3 else [*wanted, "fastgs"])


@pytest.mark.parametrize("iterations", [1, 2])
def test_the_shortest_runs_end_with_a_model(data, tmp_path, iterations):
    assert run("-s", data, "-m", tmp_path / "M", "--quiet", "--iterations", iterations) == 0
    assert (tmp_path / "M" / "point_cloud" / f"iteration_{iterations}" / "point_cloud.ply").is_file()


@pytest.mark.parametrize(("other", "options"), [("whole", ()), ("plain", TRICKY)])
def test_the_number_of_threads_does_not_change_a_byte(data, tmp_path, request, other, options):
    assert run("-s", data, "-m", tmp_path / "M", *SMALL, *options, "--threads", 3) == 0
    assert trained(tmp_path / "M") == trained(request.getfixturevalue(other))


def test_another_seed_is_another_run(data, plain, tmp_path):
    assert run("-s", data, "-m", tmp_path / "M", *SMALL, *TRICKY, "--seed", 1) == 0
    assert trained(tmp_path / "M") != trained(plain)


def test_a_folder_with_a_run_is_refused_and_left_alone(data, plain, capsys):
    before = trained(plain)
    assert run("-s", data, "-m", plain, *SMALL, *TRICKY) == 2
    assert "already holds a run; add --resume or --overwrite" in capsys.readouterr().err
    assert trained(plain) == before


def test_overwriting_starts_over(data, tmp_path):
    for iterations in (12, 5):
        assert run("-s", data, "-m", tmp_path / "M", "--quiet", "--iterations", iterations, "--overwrite") == 0
    assert [path.name for path in (tmp_path / "M" / "point_cloud").glob("iteration_5")] == ["iteration_5"]
    assert not (tmp_path / "M" / "point_cloud" / "iteration_12").exists()


def test_resuming_a_finished_run_says_so(plain, capsys):
    before = trained(plain)
    assert run("-m", plain, "--resume") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert trained(plain) == before


def test_resuming_nothing_starts_from_the_beginning(data, plain, tmp_path, capsys):
    words = [word for word in SMALL if word != "--quiet"]
    assert run("-s", data, "-m", tmp_path / "M", *words, *TRICKY, "--resume") == 0
    said = capsys.readouterr().out
    for words in ("Nothing to resume", "for training", "held out", "GiB of memory", "Backend: "):
        assert words in said
    assert trained(tmp_path / "M") == trained(plain)


@pytest.mark.parametrize("options", [(), TRICKY])
def test_a_larger_number_of_iterations_keeps_the_schedule_and_lengthens_the_last_phase(data, tmp_path, options):
    """Whether it is known from the start, or comes when the run has finished."""
    short, long = ("--iterations", 20), ("--iterations", 31)
    common = ("-s", data, *SMALL, *options)
    assert run(*common, "-m", tmp_path / "A", *long, "--schedule_iterations", 20) == 0
    assert run(*common, "-m", tmp_path / "B", *short) == 0
    first = (tmp_path / "B" / "chkpnt20.pth").read_bytes()
    assert run("-m", tmp_path / "B", "--resume", *long) == 0
    for name in ("chkpnt31.pth", "point_cloud/iteration_31/point_cloud.ply"):
        assert (tmp_path / "A" / name).read_bytes() == (tmp_path / "B" / name).read_bytes()
    assert [line["iteration"] for line in log(tmp_path / "B") if "loss" in line][-1] == 31
    assert first != (tmp_path / "B" / "chkpnt31.pth").read_bytes()
    assert run("-m", tmp_path / "B", "--resume") == 0 and run("-m", tmp_path / "B", "--resume", *long) == 0


def test_flags_that_differ_from_the_run_to_continue_are_all_named(plain, capsys):
    assert run("-m", plain, "--resume", "--seed", 4, "--num_points", 60, "--init_extent", 2) == 2
    assert "--init_extent 2.0, --seed 4: the run to continue has 0.5, 0" in capsys.readouterr().err
    assert run("-m", plain, "--resume", "--iterations", 39) == 2
    assert "can be lengthened, not shortened" in capsys.readouterr().err


def test_a_dataset_that_has_changed_is_noticed(data, struck, tmp_path, capsys):
    folder = shutil.copytree(struck.killed["in a step"], tmp_path / "M")
    changed = shutil.copytree(data, tmp_path / "changed")
    Image.new("RGB", (48, 36)).save(changed / "images" / "03.png")
    before = trained(folder)
    assert run("-s", changed, "-m", folder, "--resume") == 2
    assert "not the dataset that this run began with, views 1 changed (03.png)" in capsys.readouterr().err
    assert trained(folder) == before


MOMENTS = {
    "before its settings": ("arguments.store:save", 1),
    "before its first step": ("train:train_step", 1),
    "in a step": ("train:train_step", 25),
    "with half a checkpoint on the disk": ("utils.checkpoint:torch.save", 3),
    "with a whole checkpoint that has no name yet": ("utils.checkpoint:_digest", 60),
    "before an old checkpoint goes": ("utils.checkpoint:prune", 3),
    "while the Gaussians are saved": ("scene.model_folder:write_gaussians", 2),
    "after the last step": ("phases.milestones:Milestones.finish", 1),
}

DRIVER = """
import importlib, json, os, signal, sys
import train
from utils.command import run_command

def strike(target, count, number):
    # The count-th call of a function sends a signal to its own process.
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    original = getattr(owner, name)
    def call(*args, **options):
        nonlocal count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), number)
        return original(*args, **options)
    setattr(owner, name, call)

for target, count, number, errors, argv in json.load(sys.stdin):
    child = os.fork()
    if not child:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        strike(target, count, number)
        code = run_command(train.main, argv)
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Struck:
    """What signals have left behind."""

    killed: dict[str, Path]
    again_and_again: Path
    stopped: Path
    stopped_error: str


@pytest.fixture(scope="module")
def struck(data, tmp_path_factory) -> Struck:
    """Runs that were struck by signals: one driver for all, since importing takes longer than training."""
    base = tmp_path_factory.mktemp("struck")
    killed = {moment: base / str(k) for k, moment in enumerate(MOMENTS)}
    words = {folder: ["-s", data, "-m", folder, *SMALL] for folder in (*killed.values(), base / "again", base / "stop")}
    jobs = [(*MOMENTS[moment], 9, base / "errors", [*words[folder], *TRICKY]) for moment, folder in killed.items()]
    steps = (7, 4, 12, 15, 8)
    jobs += [("train:train_step", n, 9, base / "errors", [*words[base / "again"], "--resume"]) for n in steps]
    jobs += [("train:train_step", 13, 2, base / "stop_error", [*words[base / "stop"], *TRICKY])]
    lines = [[target, n, number, str(file), [str(word) for word in argv]] for target, n, number, file, argv in jobs]
    process = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=ROOT, input=json.dumps(lines), capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["-9"] * (len(jobs) - 1) + ["130"], (base / "errors").read_text()
    return Struck(killed, base / "again", base / "stop", (base / "stop_error").read_text())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(data, struck, plain, tmp_path, moment):
    folder = shutil.copytree(struck.killed[moment], tmp_path / "M")
    assert run("-s", data, "-m", folder, *SMALL, *TRICKY, "--resume") == 0
    assert trained(folder) == trained(plain)


def test_all_phases_go_on_to_the_same_bytes_however_often_they_were_killed(struck, whole, tmp_path):
    """At borders of phases, within them, with checkpoints at awkward places."""
    folder = shutil.copytree(struck.again_and_again, tmp_path / "M")
    assert run("-m", folder, "--resume") == 0
    assert trained(folder) == trained(whole)
    assert figures(folder) == figures(whole)


def test_ctrl_c_loses_nothing(struck, plain, tmp_path, capsys):
    message = f"Stopped after iteration 13. Continue with: python train.py -m {struck.stopped} --resume"
    assert message in struck.stopped_error and "Traceback" not in struck.stopped_error
    folder = shutil.copytree(struck.stopped, tmp_path / "M")
    assert list(checkpoint.checkpoints(folder)) == [13, 9]
    assert run("-m", folder, "--resume", "--no_quiet") == 0
    assert "Resuming from iteration 13" in capsys.readouterr().out
    assert trained(folder) == trained(plain)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(struck, plain, tmp_path, capsys):
    folder = shutil.copytree(struck.killed["in a step"], tmp_path / "M")
    newest = checkpoint.checkpoint_path(folder, 18)
    newest.write_bytes(newest.read_bytes()[:-500])
    assert run("-m", folder, "--resume") == 0
    assert str(newest) in capsys.readouterr().err
    assert trained(folder) == trained(plain)


def test_a_run_goes_on_with_another_number_of_threads_where_its_dataset_has_moved_to(data, struck, plain, tmp_path):
    folder = shutil.copytree(struck.killed["in a step"], tmp_path / "M")
    moved = shutil.copytree(data, tmp_path / "moved")
    assert run("-s", moved, "-m", folder, "--resume", "--threads", 2) == 0
    assert trained(folder) == trained(plain)


WRONG = {
    "": "--source: missing",
    "-s /no/such/place -m M": "--source /no/such/place: no such folder",
    "-s EMPTY -m M": "EMPTY",
    "-s S -m FILE": "--model_path",
    "-s S -m /proc/none": "--model_path /proc/none",
    "-s S -m S": "shares a folder with the dataset",
    "-s S -m M --iteration 5": "did you mean --iterations",
    "-s S -m M --detector qwn": "did you mean qwen",
    "-s S -m M --images photos": "photos",
    "-s S -m M --masks no_masks": "no_masks",
    "-s S -m M --qwen_model_path no_model": "no_model",
    "-s S -m M --vlm_replay no_run": "no_run",
    "-s S -m M --detector qwen": "--qwen_model_path",
    "-s S -m M --detector endpoint": "--vlm_endpoint",
    "-s S -m M --init sfm": "--init sfm",
    "-s S -m M --init FILE": "FILE",
    "-s S -m M --antialiasing": "--antialiasing: not supported yet",
    "-s S -m M --iterations 10 --main_iterations 11": "--iterations 10",
}


@pytest.mark.parametrize("line", WRONG)
def test_bad_input_is_one_line_and_exit_code_2(data, tmp_path, capsys, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("not a folder and not a PLY")
    words = [str(data) if word == "S" else word for word in line.split()]
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and WRONG[line] in error
    assert not (tmp_path / "M").exists()


def test_the_program_itself_speaks_on_stderr_and_exits_with_2(tmp_path):
    process = subprocess.run(
        [sys.executable, "train.py", "-s", str(tmp_path / "none")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.count("\n") == 1 and "no such folder" in process.stderr

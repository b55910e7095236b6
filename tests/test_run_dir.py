# SPDX-License-Identifier: Apache-2.0
"""A run's folder is never lost, never mixed with another, and tells what happened."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from arguments import Config, DataConfig, OptimConfig, RunConfig, store
from utils import checkpoint
from utils.errors import NothingToDo, UserError
from utils.run_dir import RunDir
from utils.run_files import holds_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(run=RunConfig(model_path=tmp_path / "M", iterations=40, checkpoint_every=10, quiet=True))


def asking(config: Config, **values: object) -> Config:
    return replace(config, run=replace(config.run, **values))


def train(config: Config, stop: int = 40) -> None:
    """A run of which only the writing is real."""
    with RunDir.open(config) as run:
        saved = run.resume()
        for iteration in range(saved["iteration"] + 1 if saved else 1, stop + 1):
            run.step(iteration, phase="main", losses={"image": 1 / iteration}, gaussians=iteration)
            if iteration % 15 == 0:
                run.event("prune", removed=3)
            run.checkpoint_if_due(iteration, lambda at=iteration: {"iteration": at})
        if stop == 40:
            run.finish()


def log(config: Config) -> list[dict]:
    return [json.loads(line) for line in (config.run.model_path / "log.jsonl").read_text().splitlines()]


def without_clocks(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in ("it_per_s", "elapsed")} for line in lines]


def test_a_new_folder_gets_the_settings(config):
    with RunDir.open(config) as run:
        run.resume()
    assert store.load(config.run.model_path / "config.json") == config


def test_a_folder_with_a_run_is_refused(config):
    train(config, stop=5)
    with pytest.raises(UserError, match=r"already holds a run; add --resume or --overwrite"):
        RunDir.open(config)


@pytest.mark.parametrize("witness", ["cfg_args", "point_cloud/iteration_7", "chkpnt30000.pth"])
def test_a_stranger_s_run_is_refused_too_and_never_resumed(config, witness):
    (config.run.model_path / witness).mkdir(parents=True)
    with pytest.raises(UserError, match="already holds a run"):
        RunDir.open(config)
    with pytest.raises(UserError, match="another program's run"):
        RunDir.open(asking(config, resume=True))


def test_overwriting_deletes_what_a_run_writes_and_nothing_else(config):
    train(config)
    folder = config.run.model_path
    for name in ("notes.txt", "train/mine/a.png", "train/ours_40/renders/00000.png", "snapshots/40_main.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    with RunDir.open(asking(config, overwrite=True)) as run:
        run.resume()
        left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert left == ["config.json", "notes.txt", "train/mine/a.png"]


def test_a_run_killed_while_it_deletes_an_old_one_can_still_be_resumed(config, monkeypatch):
    train(config, stop=5)
    (config.run.model_path / "cfg_args").touch()
    delete, left = Path.unlink, iter([True, False])

    def dies(path, *args, **options):
        if not next(left):
            raise KeyboardInterrupt
        delete(path, *args, **options)

    with monkeypatch.context() as patch, RunDir.open(asking(config, resume=True)) as run:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            run.resume()
    train(asking(config, resume=True))


def test_overwriting_does_not_follow_links(config, tmp_path):
    train(config, stop=1)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a.png").touch()
    (config.run.model_path / "test").mkdir()
    (config.run.model_path / "test" / "ours_1").symlink_to(tmp_path / "precious")
    with RunDir.open(asking(config, overwrite=True)) as run:
        run.resume()
        assert (tmp_path / "precious" / "a.png").exists()


def test_a_folder_that_holds_no_run_keeps_what_it_has(config):
    config.run.model_path.mkdir()
    (config.run.model_path / "notes.txt").touch()
    with RunDir.open(asking(config, overwrite=True)) as run:
        run.resume()
        assert (config.run.model_path / "notes.txt").exists()


def test_a_run_that_never_begins_changes_nothing(config):
    with pytest.raises(UserError), RunDir.open(config):
        raise UserError("--init sfm: the dataset has no points3D")
    assert not config.run.model_path.exists()
    train(config, stop=20)
    with pytest.raises(UserError), RunDir.open(asking(config, overwrite=True)):
        raise UserError("--init sfm: the dataset has no points3D")
    assert list(checkpoint.checkpoints(config.run.model_path)) == [20, 10]


def test_two_processes_cannot_write_one_folder(config):
    with RunDir.open(config), pytest.raises(UserError, match="another process is training there"):
        RunDir.open(asking(config, overwrite=True))
    RunDir.open(asking(config, resume=True))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none/M"])
def test_a_place_that_cannot_be_written_is_a_user_error(config, tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--model_path"):
        RunDir.open(asking(config, model_path=tmp_path / place))


@pytest.mark.parametrize("inside", [".", "out", ".."])
def test_a_run_shares_no_folder_with_its_dataset(config, tmp_path, inside):
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(UserError, match="shares a folder with the dataset"):
        RunDir.open(replace(asking(config, model_path=data / inside), data=DataConfig(source=data)))
    assert not list(data.iterdir())


def test_resuming_continues_the_log_as_if_nothing_had_happened(config, tmp_path):
    other = asking(config, model_path=tmp_path / "whole")
    train(other)
    for stop in (3, 17, 32):
        train(asking(config, resume=True), stop=stop)
    train(asking(config, resume=True))
    assert without_clocks(log(config)) == without_clocks(log(other))


def test_resuming_says_where_it_goes_on(config, capsys):
    train(asking(config, quiet=False), stop=25)
    assert "[ITER 20] Saving Checkpoint" in capsys.readouterr().out
    train(asking(config, quiet=False, resume=True), stop=26)
    assert "Resuming from iteration 20" in capsys.readouterr().out


@pytest.mark.parametrize("stop", [0, 5])
def test_resuming_nothing_starts_from_the_beginning_and_says_so(config, capsys, stop):
    if stop:
        train(config, stop=stop)
    with RunDir.open(asking(config, quiet=False, resume=True)) as run:
        assert run.resume() is None
    assert "Nothing to resume" in capsys.readouterr().out
    assert not (config.run.model_path / "log.jsonl").exists()


def test_a_finished_run_has_nothing_to_resume(config):
    train(config)
    with pytest.raises(NothingToDo, match="this run is finished"):
        RunDir.open(asking(config, resume=True))


def test_a_run_killed_after_its_last_step_still_gets_its_end(config):
    train(config)
    path = config.run.model_path / "log.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with RunDir.open(asking(config, resume=True)) as run:
        assert run.resume() == {"iteration": 40}


def test_an_old_checkpoint_that_a_killed_run_did_not_get_to_delete_goes(config):
    train(config, stop=25)
    old = checkpoint.checkpoint_path(config.run.model_path, 20)
    content = old.read_bytes()
    train(asking(config, resume=True))
    old.write_bytes(content)
    log_file = config.run.model_path / "log.jsonl"
    log_file.write_text("".join(log_file.read_text().splitlines(keepends=True)[:-1]))  # not finished yet
    train(asking(config, resume=True))
    assert list(checkpoint.checkpoints(config.run.model_path)) == [40, 30]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(config, capsys):
    train(config, stop=25)
    newest = checkpoint.checkpoint_path(config.run.model_path, 20)
    os.truncate(newest, 100)
    with RunDir.open(asking(config, resume=True)) as run:
        assert run.resume() == {"iteration": 10}
    error = capsys.readouterr().err
    assert str(newest) in error and "trying the one before it" in error


def test_a_run_whose_checkpoints_are_all_damaged_is_left_alone(config):
    train(config, stop=25)
    for path in checkpoint.checkpoints(config.run.model_path).values():
        os.truncate(path, 100)
    before = {path: path.read_bytes() for path in config.run.model_path.glob("*.*")}
    with pytest.raises(UserError, match="none of its checkpoints can be used"):
        RunDir.open(asking(config, resume=True))
    assert {path: path.read_bytes() for path in config.run.model_path.glob("*.*")} == before


def test_an_edited_config_is_noticed_and_what_differs_is_named(config):
    train(config, stop=25)
    other = replace(asking(config, resume=True, seed=5), optim=OptimConfig(opacity_lr=0.5))
    with pytest.raises(UserError, match=r"optim.opacity_lr 0.5 instead of 0.025, run.seed 5 instead of 0"):
        RunDir.open(other)


def test_another_dataset_is_noticed_before_anything_is_written(config):
    views = {"a.jpg": "1", "b.jpg": "2", "c.jpg": "3"}
    with RunDir.open(config) as run:
        run.resume(views)
        run.checkpoint_if_due(10, lambda: {"iteration": 10})
    before = (config.run.model_path / "log.jsonl").read_bytes()
    changed = {"a.jpg": "1", "b.jpg": "9", "d.jpg": "4"}
    said = r"1 added \(d.jpg\), 1 missing \(c.jpg\), 1 changed \(b.jpg\)"
    with RunDir.open(asking(config, resume=True)) as run, pytest.raises(UserError, match=said):
        run.resume(changed)
    assert (config.run.model_path / "log.jsonl").read_bytes() == before
    with RunDir.open(asking(config, resume=True)) as run:
        assert run.resume(views) == {"iteration": 10}


def test_a_finished_run_goes_on_when_it_is_lengthened(config):
    train(config)
    with RunDir.open(asking(config, resume=True, iterations=50)) as run:
        assert run.resume() == {"iteration": 40}


def test_what_killed_writers_left_is_swept_and_what_others_write_is_not(config):
    train(config, stop=25)
    folder = config.run.model_path
    dead = subprocess.Popen(["true"])
    dead.wait()
    (folder / "vlm" / "round_1").mkdir(parents=True)
    (folder / "notes").mkdir()
    for name in (".chkpnt20.pth.{}.part", "vlm/round_1/.audit.jsonl.{}.part", "notes/.mine.{}.part"):
        (folder / name.format(dead.pid)).touch()
    (folder / f".report.html.{os.getppid()}.part").touch()
    with RunDir.open(asking(config, resume=True)) as run:
        run.resume()
        left = sorted(path.name for path in folder.rglob(".*.part"))
    assert left == [f".mine.{dead.pid}.part", f".report.html.{os.getppid()}.part"]


def test_a_log_that_cannot_be_written_is_one_line(config):
    with RunDir.open(config) as run:
        run.resume()
        (config.run.model_path / "log.jsonl").mkdir()
        with pytest.raises(UserError, match=r"log.jsonl: cannot be written"):
            run.log(psnr=1.0)


@pytest.mark.parametrize(
    "line", ['{"iteration": 20, "elapsed": "x", "checkpoint": true}', "[" * 100_000, '{"iteration": 1e400}']
)
def test_strange_lines_in_the_log_do_no_harm(config, line):
    train(config, stop=25)
    with (config.run.model_path / "log.jsonl").open("a") as file:
        file.write(line + "\n")
    train(asking(config, resume=True))


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_nothing(config, tmp_path, monkeypatch, jump):
    train(other := asking(config, model_path=tmp_path / "calm"))
    now, calls = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: now() + jump * (next(calls) % 2))
    train(config, stop=25)
    train(asking(config, resume=True))
    assert without_clocks(log(config)) == without_clocks(log(other))


def test_half_a_line_of_the_log_is_cut(config):
    train(config, stop=25)
    with (config.run.model_path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 25, "lo')
    train(asking(config, resume=True))
    assert [line["iteration"] for line in log(config) if line.get("phase")] == [10, 20, 30, 40]


def test_every_tenth_iteration_is_on_the_disk_at_once(config):
    with RunDir.open(config) as run:
        for iteration in range(1, 21):
            run.step(iteration, phase="main", losses={"image": 2.0, "penalty": 1.0}, gaussians=9)
        lines = log(config)
    assert [line["iteration"] for line in lines] == [10, 20]
    assert next(iter(lines[0])) == "iteration"
    assert lines[0]["loss"] == 3.0 and lines[0]["loss_penalty"] == 1.0 and lines[0]["gaussians"] == 9


def test_a_phase_s_figures_do_not_mix_with_the_next_one_s(config):
    with RunDir.open(config) as run:
        for iteration in range(1, 11):
            run.step(iteration, phase="ab"[iteration > 4], losses={"image": float(iteration > 4)}, gaussians=9)
    assert [(line["iteration"], line["phase"], line["loss"]) for line in log(config)] == [(4, "a", 0), (10, "b", 1)]


def test_infinite_figures_do_not_break_json(config):
    with RunDir.open(config) as run:
        run.log(psnr=float("inf"))
    assert log(config) == [{"iteration": 0, "psnr": None}]


def test_snapshots_are_named_by_iteration(config):
    with RunDir.open(config) as run:
        run.step(3, phase="main", losses={"image": 1.0}, gaussians=1)
        assert run.snapshot("wall", torch.zeros(3, 4, 5)).name == "3_wall.png"


def test_scrapers_find_the_line_of_an_evaluation(config, capsys):
    with RunDir.open(asking(config, quiet=False)) as run:
        run.tested(30, l1=0.05, psnr=21.5, coverage=0.9)
    assert re.search(r"^\[ITER 30\] Evaluating test: L1 [\d.]+ PSNR [\d.]+$", capsys.readouterr().out, re.MULTILINE)


def test_the_bar_shows_loss_gaussians_and_phase(config, capsys):
    with RunDir.open(asking(config, quiet=False)) as run:
        for iteration in range(1, 11):
            run.step(iteration, phase="ambient", losses={"image": 0.5}, gaussians=123)
    shown = capsys.readouterr().err
    for word in ("Training progress", "Loss=0.5000000", "Gaussians=123", "phase=ambient", "10/40", "it/s"):
        assert word in shown


def test_quiet_runs_print_nothing(config, capsys):
    train(config)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_tags_of_the_field(config):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for last, resume in ((25, False), (30, True)):
        with RunDir.open(asking(config, resume=resume)) as run:
            begin = (run.resume() or {"iteration": 0})["iteration"]
            for iteration in range(begin + 1, last + 1):
                run.seen(torch.tensor(0.25))
                run.step(iteration, phase="main", losses={"image": 0.5}, gaussians=7)
                run.checkpoint_if_due(iteration, lambda at=iteration: {"iteration": at})
            run.tested(last, l1=0.1, psnr=20.0, coverage=1.0)
            run.picture("test_view_a/render", torch.rand(3, 4, 4))
            run.histogram("scene/opacity_histogram", torch.rand(5))
    events = EventAccumulator(str(config.run.model_path)).Reload()
    tags = ["train_loss_patches/l1_loss", "train_loss_patches/total_loss", "iter_time", "total_points"]
    assert {*tags, "test/loss_viewpoint - l1_loss", "test/loss_viewpoint - psnr"} <= set(events.Tags()["scalars"])
    assert "test_view_a/render" in events.Tags()["images"]
    assert "scene/opacity_histogram" in events.Tags()["histograms"]
    assert [event.step for event in events.Scalars("total_points")] == [10, 20, 30]
    assert [event.step for event in events.Scalars("test/loss_viewpoint - psnr")] == [30]  # that of 25 is purged


SLOW_RUN = """
import sys, time
from pathlib import Path
from arguments import Config, RunConfig
from utils.command import run_command
from utils.run_dir import RunDir

def main(args):
    config = Config(run=RunConfig(model_path=Path(args[0]), iterations=10**6, checkpoint_every=10**6, quiet=True))
    with RunDir.open(config) as run:
        run.resume()
        for iteration in range(1, 10**6):
            run.step(iteration, phase="main", losses={"image": 1.0}, gaussians=1)
            run.checkpoint_if_due(iteration, lambda: {"iteration": iteration})
            print(iteration, flush=True)
            until = time.monotonic() + float(args[1])
            while time.monotonic() < until:  # a signal right before one long sleep would be heard only after it
                time.sleep(0.01)

sys.exit(run_command(main))
"""


def slow_run(config: Config, pause: float) -> subprocess.Popen:
    """A run in a process of its own that is past its first steps."""
    command = [sys.executable, "-c", SLOW_RUN, str(config.run.model_path), str(pause)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    return process


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_finishes_the_step_and_writes_a_checkpoint(config, by):
    process = slow_run(config, pause=0.01)
    process.send_signal(by)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    (iteration,) = checkpoint.checkpoints(config.run.model_path)
    assert f"Stopped after iteration {iteration}. Continue with: python train.py -m" in error
    assert "--resume" in error and "Traceback" not in error


def test_a_second_ctrl_c_does_not_wait(config):
    process = slow_run(config, pause=3600)
    process.send_signal(signal.SIGINT)
    assert "Stopping after this step" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error


def test_a_terminal_that_closes_may_say_so_twice(config):
    process = slow_run(config, pause=0.2)
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 130 and checkpoint.checkpoints(config.run.model_path)


def test_a_killed_run_gives_its_folder_back(config):
    process = slow_run(config, pause=3600)
    with pytest.raises(UserError, match="another process"):
        RunDir.open(asking(config, overwrite=True))
    process.kill()
    process.communicate(timeout=60)
    assert holds_run(config.run.model_path)
    with RunDir.open(asking(config, resume=True)):
        pass

# SPDX-License-Identifier: Apache-2.0
"""The command line gives the settings that were meant, and one clear line for those that cannot be."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from arguments import Config, parse, setting
from arguments.cli import _scale
from arguments.listing import all_settings
from utils.errors import UserError


@dataclass(kw_only=True)
class Main:
    """The subject."""

    name: ClassVar[str] = "main"
    iterations: int | None = setting(None, "Length.")
    every: int = setting(3_000, "Rhythm.", scaled=True)
    weight: float = setting(4.0, "100% of the weight.", low=1)
    pixels: tuple[int, int] = setting((256, 1024), "Budget.")
    shape: Literal["tube", "box"] = setting("tube", "Shape.")
    penalty: bool = setting(True, "Penalty.")
    count: int = 0  # not a setting


@dataclass(kw_only=True)
class Vlm:
    """The judge."""

    name: ClassVar[str] = "vlm"
    iterations: int | None = setting(None, "Length.")


PHASES = {"main": Main, "vlm": Vlm}


@pytest.fixture
def read(tmp_path):
    """Parse a line in which `S` is a dataset folder that exists."""

    def parse_line(line: str) -> Config:
        words = [str(tmp_path) if word == "S" else word for word in line.split()]
        return parse(words, PHASES)

    return parse_line


def test_the_two_paths_are_enough(read, tmp_path):
    config = read("--source S --model_path M")
    assert (config.data.source, config.run.model_path) == (tmp_path, Path("M"))
    assert config.run.iterations == 30_000 and config.data.eval and config.run.phases == "main,ambient,vlm"


@pytest.mark.parametrize("flag", ["-s", "--source", "--source_path"])
def test_the_spellings_of_the_field_are_all_known(read, tmp_path, flag):
    assert read(f"{flag} S").data.source == tmp_path


def test_inria_and_fastgs_flags_have_their_published_defaults(read):
    config = read("-s S")
    optim = config.optim
    assert (optim.position_lr_init, optim.position_lr_final, optim.position_lr_max_steps) == (1.6e-4, 1.6e-6, 30_000)
    assert (optim.opacity_lr, optim.scaling_lr, optim.rotation_lr, optim.lambda_dssim) == (0.025, 0.005, 0.001, 0.2)
    assert (optim.densify_from_iter, optim.densify_until_iter, optim.opacity_reset_interval) == (500, 15_000, 3_000)
    assert (optim.grad_thresh, optim.grad_abs_thresh, optim.dense, optim.loss_thresh) == (2e-4, 1.2e-3, 0.001, 0.1)
    assert (optim.highfeature_lr, optim.lowfeature_lr, config.pipeline.mult) == (0.005, 0.0025, 0.5)
    assert config.run.test_iterations == config.run.save_iterations == (7_000, 30_000)


def test_a_fastgs_command_line_runs_unchanged(read):
    line = "-s S -i images_4 --eval --optimizer_type default --test_iterations 30000 --densification_interval 500"
    config = read(f"{line} --grad_abs_thresh 0.0008 --highfeature_lr 0.02 --disable_viewer")
    assert (config.data.images, config.optim.highfeature_lr, config.run.test_iterations) == (
        "images_4",
        0.02,
        (30_000,),
    )


def test_every_view_trains_only_when_asked(read):
    assert read("-s S").data.eval and read("-s S --eval").data.eval
    assert not read("-s S --no_eval").data.eval


def test_default_schedules_scale_with_the_run(read):
    config = read("-s S --iterations 3000")
    assert (config.optim.densification_interval, config.optim.densify_until_iter) == (50, 1_500)
    assert config.run.test_iterations == (700, 3_000)
    assert config.phases["main"]["every"] == 300


def test_given_schedules_do_not_scale(read):
    config = read("-s S --iterations 3000 --densification_interval 100 --test_iterations 5 --main_every 7")
    assert (config.optim.densification_interval, config.run.test_iterations) == (100, (5,))
    assert config.phases["main"]["every"] == 7
    assert config.optim.late_prune_interval == 300


@pytest.mark.parametrize("iterations", [1, 2, 7, 100, 29_999])
def test_no_interval_falls_to_zero(read, iterations):
    config = read(f"-s S --iterations {iterations}")
    assert config.optim.densification_interval >= 1 and config.optim.sh_interval >= 1
    assert min(config.run.test_iterations) >= 1


def test_scaling_keeps_zero_and_rounds_halves_up():
    assert _scale(0, 10) == 0 and _scale(None, 10) is None
    assert _scale(500, 30) == 1 and _scale(500, 90) == 2 and _scale(500, 60_000) == 1_000


def test_settings_of_phases_are_flags_with_the_name_of_the_phase(read):
    config = read("-s S --main_weight 2.5 --main_pixels 100,200 --main_shape box --no_main_penalty --vlm_iterations 9")
    assert config.phases["main"] == {
        "iterations": None,
        "every": 3_000,
        "weight": 2.5,
        "pixels": (100, 200),
        "shape": "box",
        "penalty": False,
    }
    assert config.phases["vlm"] == {"iterations": 9}


def test_the_flags_that_were_given_are_remembered(read):
    assert read("-r 2 -s S --main_weight 4").given == ("--source", "--resolution", "--main_weight")


def test_without_a_model_path_the_run_gets_a_random_folder(read):
    first, second = (read("-s S").run.model_path for _ in range(2))
    assert first.parent == Path("output") and len(first.name) == 10 and first != second


def test_presets_fill_in_what_was_not_given(read):
    config = read("-s S --preset big:train --dense 0.5 --iterations 3000")
    assert config.optim.grad_abs_thresh == 4e-4 and config.optim.highfeature_lr == 0.042
    assert config.optim.densification_interval == 10 and config.pipeline.mult == 0.7
    assert config.optim.dense == 0.5


WRONG = {
    "": "--source: missing; give",
    "-s /no/such/folder": "--source /no/such/folder: no such folder",
    "-s S --iteration 5": "--iteration: not known, did you mean --iterations",
    "-s S --main_wieght=5": "--main_wieght=5: not known, did you mean --main_weight",
    "-s S --iter 5": "--iter: not known",
    "-s S stray": "stray: not known",
    "-s S --iterations 0": "--iterations 0: must be at least 1",
    "-s S --num_points 0": "--num_points 0: must be at least 1",
    "-s S --sh_degree 4": "--sh_degree 4: must be at most 3",
    "-s S --resolution 0": "--resolution 0: give",
    "-s S --main_weight 0.5": "--main_weight 0.5: must be at least 1",
    "-s S --iterations many": "--iterations: invalid int value: 'many'",
    "-s S --mult nan": "--mult: nan is not a finite number",
    "-s S --mult wide": "--mult: invalid number value: 'wide'",
    "-s S --main_pixels 5,4": "--main_pixels 5,4: the first must not be larger",
    "-s S --main_pixels 5": "--main_pixels: 5 is not 2 values",
    "-s S --detector qwn": "'qwn' is not one of qwen, .*did you mean qwen",
    "-s S --phases mian": "--phases mian: 'mian' is not one of main, vlm, none, did you mean main",
    "-s S --phases vlm,main": "--phases vlm,main: each at most once and in this order: main,vlm",
    "-s S --phases main,main": "--phases main,main: each at most once",
    "-s S --init spm": "--init spm: neither random nor sfm nor a file",
    "-s S --preset base:gardn": "--preset base:gardn: not known, did you mean base:garden",
    "-s S --depths d": "--depths: not supported yet",
    "-s S --antialiasing": "--antialiasing: not supported yet",
    "-s S --port 80": "--port: not supported yet",
    "-s S -m M --resume --overwrite": "--resume and --overwrite contradict",
    "-s S --resume": "--resume: give the folder of the run with --model_path",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_said_in_one_line(read, line):
    with pytest.raises(UserError, match=WRONG[line]) as caught:
        read(line)
    assert "\n" not in str(caught.value)


def test_unsupported_flags_are_accepted_at_their_default(read):
    read("-s S --port 6009 --no_antialiasing --optimizer_type default --exposure_lr_init 0.01")


def test_help_shows_every_supported_flag_once_in_its_group(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], PHASES)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for heading in ("data:", "run:", "pipeline:", "optim:", "detector:", "phase main:", "phase vlm:"):
        assert f"\n{heading}\n" in text
    for one in all_settings(PHASES):
        assert (f"{one.flag} " in text or f"{one.flag}\n" in text or f"{one.flag}," in text) == one.supported, one.flag
    assert "100% of the weight. [4.0]" in text and "[256,1024]" in text

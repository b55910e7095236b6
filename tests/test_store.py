# SPDX-License-Identifier: Apache-2.0
"""config.json gives back exactly what was written, and refuses what it does not know."""

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from arguments import Config, parse, setting, store
from utils.errors import UserError


@dataclass(kw_only=True)
class Main:
    """The subject."""

    name: ClassVar[str] = "main"
    iterations: int | None = setting(None, "Length.")
    pixels: tuple[int, int] = setting((256, 1024), "Budget.")


PHASES = {"main": Main}


@pytest.fixture
def config(tmp_path) -> Config:
    line = f"-s {tmp_path} -m M --masks m --checkpoint_iterations 3 4 --main_pixels 1,2 --no_eval --mult 1"
    return parse(line.split(), PHASES)


@pytest.fixture
def file(tmp_path, config) -> Path:
    store.save(config, tmp_path / "config.json")
    return tmp_path / "config.json"


def edit(file: Path, section: str, **values: object) -> None:
    content = json.loads(file.read_text())
    (content[section] if section else content).update(values)
    file.write_text(json.dumps(content))


def test_what_was_saved_comes_back(config, file):
    assert store.load(file, PHASES) == config


def test_types_survive_json(config, file):
    again = store.load(file, PHASES)
    assert isinstance(again.data.masks, Path) and again.run.checkpoint_iterations == (3, 4)
    assert isinstance(again.pipeline.mult, float) and again.phases["main"]["pixels"] == (1, 2)


def test_readers_that_know_no_phases_get_the_rest(config, file):
    assert store.load(file) == replace(config, phases={})


def test_the_file_is_for_people_too(file):
    content = json.loads(file.read_text())
    assert list(content)[:3] == ["format", "commit", "given"]
    assert content["data"]["eval"] is False and "--main_pixels" in content["given"]


def test_the_commit_is_what_git_says(file):
    root = Path(store.__file__).parents[1]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if git.returncode:
        pytest.skip("not a git checkout")
    assert re.fullmatch("[0-9a-f]{40}", store.program_commit() or "")


def test_what_an_older_file_lacks_has_its_default(file):
    content = json.loads(file.read_text())
    del content["optim"]["lambda_dssim"], content["phases"]["main"]["pixels"]
    file.write_text(json.dumps(content))
    again = store.load(file, PHASES)
    assert again.optim.lambda_dssim == 0.2 and again.phases["main"]["pixels"] == (256, 1024)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("", {"optm": {}}, "optm is not known, did you mean optim"),
        ("run", {"iteration": 5}, "run.iteration is not known, did you mean run.iterations"),
        ("run", {"iterations": "5"}, "run.iterations is '5', which is not a whole number"),
        ("run", {"iterations": True}, "run.iterations is True, which is not a whole number"),
        ("run", {"iterations": None}, "run.iterations is None, which is not a value"),
        ("run", {"checkpoint_iterations": [1, "2"]}, "which is not a whole number"),
        ("run", {"backend": "metal"}, "which is not one of 'auto', 'cpu', 'cuda'"),
        ("data", {"masks": 3}, "data.masks is 3, which is not a path"),
        ("pipeline", {"mult": "wide"}, "which is not a number"),
        ("", {"format": 99}, "format 99, but this version reads 1"),
        ("", {"data": []}, "data must be an object"),
        ("", {"given": "all"}, "given must be a list of flags"),
        ("phases", {"main": {"pixels": [1]}}, "which is not a list of 2"),
        ("phases", {"main": {"pixel": [1]}}, "phases.main.pixel is not known, did you mean phases.main.pixels"),
    ],
)
def test_what_does_not_belong_is_named(file, section, values, message):
    edit(file, section, **values)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        store.load(file, PHASES)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "[" * 100_000])
def test_damaged_files_are_user_errors(file, text):
    file.write_text(text)
    with pytest.raises(UserError, match=str(file)):
        store.load(file, PHASES)


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        store.load(tmp_path / "config.json")


def test_a_continued_run_takes_its_settings_from_the_file(config, tmp_path):
    store.save(replace(config, run=replace(config.run, iterations=77)), tmp_path / "config.json")
    again = parse(["-m", str(tmp_path), "--resume", "--threads", "3"], PHASES)
    assert (again.run.iterations, again.run.threads, again.run.resume) == (77, 3, True)
    assert again.run.model_path == tmp_path and again.given == config.given


def test_a_continued_run_may_be_told_again_what_it_is(file, tmp_path):
    parse(["-m", str(tmp_path), "-s", str(tmp_path), "--resume", "--mult", "1.0"], PHASES)


def test_a_continued_run_cannot_become_another_one(file, tmp_path):
    with pytest.raises(UserError, match=r"--iterations 5: the run to continue has 30000"):
        parse(["-m", str(tmp_path), "--resume", "--iterations", "5"], PHASES)


def test_resuming_what_was_never_begun_is_a_beginning(tmp_path):
    config = parse(["-m", str(tmp_path / "M"), "-s", str(tmp_path), "--resume"], PHASES)
    assert config.run.resume and config.run.iterations == 30_000

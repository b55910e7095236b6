# SPDX-License-Identifier: Apache-2.0
"""The card is taken where it works; where it does not, one line says why and what to do."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from diff_gaussian_rasterization import native

import render
import train
from gaussian_renderer import backend
from gaussian_renderer.backend import choose_backend, why_not_cuda
from utils.command import run_command
from utils.errors import UserError, machine_failure


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with a card of 9.0, 80 GB and a module for it; the self-check cannot run and is left out."""
    monkeypatch.setattr(backend, "DRIVER_FILES", (str(tmp_path),))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(native, "cuda", SimpleNamespace(architectures="75;90"))
    answers = {
        "is_available": True,
        "current_device": 1,
        "get_device_capability": (9, 0),
        "mem_get_info": (79 << 30, 80 << 30),
        "get_device_name": "Card",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(backend, "_self_check", lambda: None)
    return monkeypatch


def test_a_card_that_works_is_taken(machine):
    chosen = choose_backend("auto", "cuda")
    assert chosen.device == torch.device("cuda", 1)
    assert chosen.told == "CUDA, Card (sm_90, 80 GiB)"


def no_driver(machine):
    machine.setattr(backend, "DRIVER_FILES", ("/nowhere",))
    return "no NVIDIA driver"


def cpu_build_of_torch(machine):
    machine.setattr(torch.version, "cuda", None)
    return "is a CPU build"


def no_card(machine):
    machine.setattr(torch.cuda, "is_available", lambda: False)
    return "torch sees no card, look at `nvidia-smi`"


def old_driver(machine):
    def is_available():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old\nmore", stacklevel=1)
        return False

    machine.setattr(torch.cuda, "is_available", is_available)
    return r"\(CUDA initialization: The NVIDIA driver on your system is too old\)"


def no_module(machine):
    machine.setattr(native, "cuda", None)
    machine.setattr(native, "REASON", "the rasteriser was built without CUDA")
    return "built without CUDA, `make cuda`"


def another_card(machine):
    machine.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    return "built for sm_75;90, the card is sm_70, `make cuda`"


def full_card(machine):
    machine.setattr(torch.cuda, "mem_get_info", lambda: (100 << 20, 8192 << 20))
    return "100 of the card's 8192 MB are free"


def silent_card(machine):
    def mem_get_info():
        raise RuntimeError("CUDA error: unspecified launch failure\nmore")

    machine.setattr(torch.cuda, "mem_get_info", mem_get_info)
    return r"does not answer \(CUDA error: unspecified launch failure\)"


WRONG = [no_driver, cpu_build_of_torch, no_card, old_driver, no_module, another_card, full_card, silent_card]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_said_in_one_line_and_the_cpu_goes_on(machine, wrong):
    words = wrong(machine)
    with pytest.raises(UserError, match=f"--backend cuda: .*{words}") as refused:
        choose_backend("cuda")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=f"--data_device cuda: .*{words}"):
        choose_backend("auto", "cuda")
    chosen = choose_backend("auto")
    assert chosen.device.type == "cpu"
    assert chosen.told.startswith("CPU, ") and str(refused.value).partition(": ")[2].split("; or ")[0] in chosen.told


def test_the_cpu_is_taken_without_a_word_when_it_was_asked_for(machine):
    assert "CUDA" not in choose_backend("cpu").told


def test_the_self_check_tells_a_wrong_picture_from_a_right_one(monkeypatch):
    host, wrong = torch.device("cpu"), []
    draw = backend._drawn

    def drawn(device):
        image, gradient = draw(host)
        return image + 0.01 * len(wrong) * (device != host), gradient

    monkeypatch.setattr(backend, "_drawn", drawn)
    assert backend._self_check() is None
    wrong.append(True)
    assert "another picture" in backend._self_check()


@pytest.mark.parametrize("command", [train, render], ids=["train", "render"])
def test_a_command_ends_with_code_two(machine, command, tmp_path, capsys):
    no_driver(machine)
    folder, data = tmp_path / "M", ["-s", str(tmp_path)] if command is train else []
    folder.mkdir()
    if command is render:
        pytest.importorskip("plyfile")
        machine.setattr(render, "load_model", lambda *_: SimpleNamespace(splats=None, settings={}))
        machine.setattr(render, "data_settings", lambda *_: SimpleNamespace(white_background=False))
    assert run_command(command.main, [*data, "-m", str(folder), "--backend", "cuda"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "no NVIDIA driver" in said.err
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("CUDA, bin_sort: out of memory; lower --resolution or the number of Gaussians"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    ],
)
def test_memory_of_the_card_that_is_full_is_one_line_that_says_what_to_lower(error):
    line = machine_failure(error)
    assert "\n" not in line and line.startswith("out of memory on the card")
    for remedy in ("--resolution", "--cap_max", "--data_device cpu", "--cache_gb", "--resume"):
        assert remedy in line


def test_a_card_that_fails_is_one_line():
    line = machine_failure(RuntimeError("CUDA error: an illegal memory access was encountered\nmore"))
    assert "illegal memory access" in line and "--resume" in line and "\n" not in line


def test_why_not_is_none_or_a_line_on_this_machine():
    reason = why_not_cuda()
    assert reason is None or (reason and "\n" not in reason)

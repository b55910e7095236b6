# SPDX-License-Identifier: Apache-2.0
"""The whole product on a card that is pretended: no two devices meet, and the CUDA sources train as the CPU does."""

import json
from pathlib import Path

import numpy as np
import pretended_card
import pytest
import torch
from diff_gaussian_rasterization import _native, native
from PIL import Image
from pretended_card import CARD, MixedDevicesError, on_card

import metrics
import render
import train
from gaussian_renderer import backend
from gaussian_renderer.backend import Backend
from scene.splat_files import read_splats
from tests.scenes.small_capture import write_capture
from utils import checkpoint
from utils.command import run_command

SMALL = ("--iterations", 30, "--num_points", 60, "--vlm_views", 2, "--score_views", 3, "--quiet")
FEW = ("-r", 2, "--iterations", 6, "--num_points", 30, "--vlm_views", 1, "--vlm_rounds", 1, "--quiet")


def run(command, *words: object) -> int:
    return run_command(command.main, [str(word) for word in words])


def curve(folder: Path) -> list[tuple[float, float]]:
    """Loss and number of Gaussians of each line of figures."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["loss"], line["gaussians"]) for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    """Twelve views with masks that hide a corner."""
    folder = write_capture(tmp_path_factory.mktemp("capture"))
    mask = np.full((36, 48), 255, np.uint8)
    mask[:10, :12] = 0
    (folder / "masks").mkdir()
    for photo in (folder / "images").iterdir():
        Image.fromarray(mask).save(folder / "masks" / photo.name)
    return folder


@pytest.fixture
def pretended(monkeypatch):
    """Commands that run on the pretended card, where a native module draws."""

    def chosen(asked, *_) -> Backend:
        return Backend(torch.device("cpu") if asked == "cpu" else CARD, "pretended")

    def on(module) -> pretended_card.PretendedCard:
        for command in (train, render, metrics):
            monkeypatch.setattr(command, "choose_backend", chosen)
        monkeypatch.setattr(native, "cuda", module)
        return pretended_card.pretend(monkeypatch)

    return on


OPTIONS = {
    "as it comes": (),
    "published": ("--fastgs_faithful", "--phases", "none"),
    "photos on the card": ("--data_device", "cuda", "--random_background", "--views_per_step", 2, "--deterministic"),
    "layers, boxes anywhere": ("--ambient_shape", "layers", "--detector", "placebo", "--cap_max", 150),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_run_mixes_no_devices_and_gives_the_model_of_the_cpu(pretended, capture, tmp_path, options):
    words = ("-s", capture, *SMALL, *options)
    host = [word for word in words if word not in ("--data_device", "cuda", "--deterministic")]
    assert run(train, "-m", tmp_path / "host", *host) == 0
    with pretended(_native) as card:
        assert run(train, "-m", tmp_path / "card", *words) == 0
    assert card.carried > 30 and card.fetched > 0
    files = [f / "point_cloud" / "iteration_30" / "point_cloud.ply" for f in (tmp_path / "host", tmp_path / "card")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_goes_on_from_the_card_to_the_cpu_and_is_drawn_and_measured_there(pretended, capture, tmp_path):
    folder = tmp_path / "M"
    with pretended(_native):
        assert run(train, "-s", capture, "-m", folder, *SMALL) == 0
        assert run(train, "-m", folder, "--iterations", 33, "--resume", "--quiet") == 0
        assert run(render, "-m", folder, "--depth", "--alpha", "--quiet") == 0
        assert run(metrics, "-m", folder, "--quiet") == 0
    there = json.loads((folder / "results.json").read_text())
    assert there["ours_33"]["PSNR"] > 5
    assert run(metrics, "-m", folder, "--backend", "cpu", "--quiet") == 0
    assert json.loads((folder / "results.json").read_text()) == there
    assert run(train, "-m", folder, "--iterations", 36, "--resume", "--backend", "cpu", "--quiet") == 0


def test_the_cuda_sources_train_all_phases_as_the_cpu_does(pretended, cuda_on_host, capture, tmp_path):
    words = ("-s", capture, *FEW)
    assert run(train, "-m", tmp_path / "host", *words) == 0
    with pretended(cuda_on_host):
        assert run(train, "-m", tmp_path / "card", *words) == 0
    ours, expected = (np.array(curve(tmp_path / name)) for name in ("card", "host"))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    models = [read_splats(next((tmp_path / name).rglob("point_cloud.ply"))) for name in ("card", "host")]
    assert len(models[0].means) == len(models[1].means) > 40
    np.testing.assert_allclose(models[0].means, models[1].means, atol=1e-3)


def test_numbers_that_are_not_finite_end_a_run_one_step_later_and_the_checkpoint_is_good(
    pretended, capture, tmp_path, capsys, monkeypatch
):
    original, steps = train.train_step, []

    def step(state, phase):
        if state.iteration == 7:
            monkeypatch.setattr(phase, "loss", lambda *_: {"image": state.gaussians.means.sum() * float("inf")})
        steps.append(state.iteration)
        return original(state, phase)

    monkeypatch.setattr(train, "train_step", step)
    with pretended(_native):
        assert run(train, "-s", capture, "-m", tmp_path / "M", *SMALL, "--checkpoint_iterations", 5) == 2
    assert "iteration 8: loss image is " in capsys.readouterr().err
    assert steps == list(range(9))
    newest, *_ = checkpoint.checkpoints(tmp_path / "M").values()
    saved = checkpoint.load(newest)
    assert saved.iteration == 5 and all(rows.isfinite().all() for rows in saved.payload["state"]["rows"].values())


def test_the_self_check_passes_on_the_cuda_sources(pretended, cuda_on_host):
    with pretended(cuda_on_host):
        assert backend._self_check() is None


MIXED = {
    "sum": lambda card: card + torch.ones(3),
    "concatenation": lambda card: torch.cat([card, torch.ones(3)]),
    "index": lambda card: card[torch.tensor([0, 1])],
    "writing to the host": lambda card: torch.ones(3).add_(card),
    "setting an item": lambda card: torch.ones(3).__setitem__(0, card[0]),
    "numpy": lambda card: card.numpy(),
    "array": lambda card: np.asarray(card),
    "generator": lambda card: torch.rand(3, device=CARD, generator=torch.Generator()),
}


@pytest.mark.parametrize("mixed", MIXED.values(), ids=MIXED)
def test_the_pretended_card_refuses_what_a_card_refuses(pretended, mixed):
    with pretended(_native), pytest.raises(MixedDevicesError):
        mixed(torch.zeros(3, device=CARD))


def test_the_pretended_card_takes_what_a_card_takes(pretended):
    with pretended(_native):
        card = torch.ones(3).to(CARD).requires_grad_()
        values = card * torch.tensor(2.0) + card.new_zeros(3) + torch.arange(3, device="cuda")
        values.square().sum().backward()
        assert card.device == CARD and card.is_cuda and card.grad.is_cuda and values.tolist() == [2, 3, 4]
        assert not on_card(card.cpu()) and card.cpu().sum() == 3
        first, second = torch.zeros(2, 3, device=CARD)
        assert first.is_cuda and second.max() == 0

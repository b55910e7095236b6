# SPDX-License-Identifier: Apache-2.0
"""Images keep their values through files, sizes and rows."""

import pytest
import torch

from utils.image import read_picture, resize, save_png, side_by_side


def test_a_png_holds_floor_of_255_x_plus_a_half(tmp_path):
    exact = torch.tensor([0.0, 0.49 / 255, 0.5 / 255, 1.5 / 255, 254.5 / 255, 1.0, -3.0, 7.0])
    save_png(tmp_path / "a.png", exact.expand(3, 1, 8))
    levels = read_picture(tmp_path / "a.png")[0, 0] * 255
    assert levels.round().int().tolist() == [0, 0, 1, 2, 255, 255, 0, 255]


def test_eight_bit_images_come_back_exactly(tmp_path, rng):
    image = torch.randint(0, 256, (3, 5, 7), generator=rng) / 255
    save_png(tmp_path / "a.png", image)
    assert torch.equal(read_picture(tmp_path / "a.png"), image)


@pytest.mark.parametrize("size", [(4, 3), (9, 5), (30, 20)])
def test_a_constant_image_stays_constant(size):
    small = resize(torch.full((3, 10, 15), 0.25), *size)
    assert small.shape == (3, size[1], size[0])
    torch.testing.assert_close(small, torch.full_like(small, 0.25))


def test_shrinking_keeps_the_mean_of_what_varies_fast():
    stripes = torch.arange(40).remainder(2).float().expand(3, 40, 40)
    torch.testing.assert_close(resize(stripes, 10, 10)[:, 2:-2, 2:-2], torch.full((3, 6, 6), 0.5), atol=0.02, rtol=0)


def test_images_stand_in_a_row_at_the_height_of_the_first():
    row = side_by_side([torch.zeros(3, 10, 20), torch.full((3, 20, 10), 0.5)], gap=3)
    assert row.shape == (3, 10, 20 + 3 + 5)
    assert row[:, :, :20].max() == 0
    assert row[:, :, 20:23].min() == 1
    torch.testing.assert_close(row[:, :, 23:], torch.full((3, 10, 5), 0.5))

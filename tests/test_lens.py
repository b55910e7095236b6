# SPDX-License-Identifier: Apache-2.0
"""Every lens bends rays as its model says, and a photo made through it comes out straight."""

import cv2
import numpy as np
import pytest

from scene.lens import LENS_MODELS, WITH_TWO_FOCALS, Lens
from scene.undistort import undistorted

COEFFICIENTS = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": (-0.12,),
    "RADIAL": (-0.15, 0.03),
    "OPENCV": (-0.2, 0.05, 0.002, -0.003),
    "OPENCV_FISHEYE": (-0.02, 0.004, -0.001, 0.0002),
    "FULL_OPENCV": (-0.2, 0.05, 0.002, -0.003, 0.01, 0.02, -0.01, 0.005),
    "FOV": (0.7,),
    "SIMPLE_RADIAL_FISHEYE": (-0.02,),
    "RADIAL_FISHEYE": (-0.02, 0.004),
    "THIN_PRISM_FISHEYE": (-0.02, 0.004, 0.001, -0.002, 0.001, -0.0005, 0.003, -0.002),
    "RAD_TAN_THIN_PRISM_FISHEYE": (-0.02, 0.01, -0.004, 0.001, 0.0, 0.0, 0.001, -0.002, 0.002, 0.001, -0.003, 0.001),
    "SIMPLE_DIVISION": (-0.15,),
    "DIVISION": (-0.15,),
    "SIMPLE_FISHEYE": (),
    "FISHEYE": (),
    "EUCM": (0.55, 1.1),
}
WIDTH, HEIGHT = 160, 120


def lens(model: str) -> Lens:
    focals = (130.0, 127.0)[: LENS_MODELS[model].focals]
    return Lens(model, WIDTH, HEIGHT, (*focals, 83.0, 57.0, *COEFFICIENTS[model]))


def rays(count: int = 200, reach: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-reach, reach, count), rng.uniform(-reach, reach, count)


def test_every_model_is_tried_here():
    assert COEFFICIENTS.keys() == LENS_MODELS.keys()
    for name, model in LENS_MODELS.items():
        assert len(COEFFICIENTS[name]) == model.coefficients, name


@pytest.mark.parametrize("model", ["OPENCV", "FULL_OPENCV"])
def test_opencv_models_are_opencvs(model):
    x, y = rays()
    points = np.stack([x, y, np.ones_like(x)], 1)
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), np.array(COEFFICIENTS[model]))[0]
    np.testing.assert_allclose(np.stack(lens(model).bend(x, y), 1), expected[:, 0], atol=1e-12)


def test_the_fisheye_model_is_opencvs():
    x, y = rays()
    points = np.stack([x, y, np.ones_like(x)], 1)[:, None]
    coefficients = np.array(COEFFICIENTS["OPENCV_FISHEYE"])
    expected = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), coefficients)[0]
    np.testing.assert_allclose(np.stack(lens("OPENCV_FISHEYE").bend(x, y), 1), expected[:, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("special", "general"),
    [
        (("SIMPLE_RADIAL", (-0.1,)), ("OPENCV", (-0.1, 0, 0, 0))),
        (("RADIAL", (-0.1, 0.02)), ("FULL_OPENCV", (-0.1, 0.02, 0, 0, 0, 0, 0, 0))),
        (("OPENCV", (-0.1, 0.02, 0.01, 0.02)), ("FULL_OPENCV", (-0.1, 0.02, 0.01, 0.02, 0, 0, 0, 0))),
        (("SIMPLE_FISHEYE", ()), ("OPENCV_FISHEYE", (0, 0, 0, 0))),
        (("RADIAL_FISHEYE", (0.1, 0.02)), ("OPENCV_FISHEYE", (0.1, 0.02, 0, 0))),
        (("OPENCV_FISHEYE", (0.1, 0.02, 0.03, 0.04)), ("THIN_PRISM_FISHEYE", (0.1, 0.02, 0, 0, 0.03, 0.04, 0, 0))),
        (
            ("OPENCV_FISHEYE", (0.1, 0.02, 0.03, 0.04)),
            ("RAD_TAN_THIN_PRISM_FISHEYE", (0.1, 0.02, 0.03, 0.04, 0, 0, 0, 0, 0, 0, 0, 0)),
        ),
        (("EUCM", (0.0, 1.0)), ("PINHOLE", ())),
        (("DIVISION", (0.0,)), ("PINHOLE", ())),
        (("FOV", (1e-5,)), ("PINHOLE", ())),
    ],
    ids=lambda pair: pair[0],
)
def test_general_models_contain_the_special_ones(special, general):
    bent = []
    for model, coefficients in (special, general):
        focals = (1.0,) * LENS_MODELS[model].focals
        bent.append(Lens(model, 9, 9, (*focals, 0.0, 0.0, *map(float, coefficients))).bend(*rays()))
    np.testing.assert_allclose(bent[0], bent[1], atol=1e-9)


def test_the_division_model_undoes_what_its_name_says():
    x, y = rays()
    k = -0.15
    u, v = lens("DIVISION").bend(x, y)
    np.testing.assert_allclose(u / (1 + k * (u * u + v * v)), x, atol=1e-12)
    np.testing.assert_allclose(v / (1 + k * (u * u + v * v)), y, atol=1e-12)


def test_the_fov_model_turns_angles_into_lengths():
    radius = np.linspace(0, 0.8, 50)
    bent, _ = lens("FOV").bend(radius, 0 * radius)
    np.testing.assert_allclose(np.tan(0.7 * bent) / (2 * np.tan(0.35)), radius, atol=1e-7)


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth colour for every ray, [H, W, 3]."""
    waves = np.stack([np.sin(9 * x + 2 * y), np.cos(8 * y - x), np.sin(6 * (x + y))], axis=-1)
    return np.clip(128 + 100 * waves + 0.5, 0, 255).astype(np.uint8)


def grid(of: Lens) -> tuple[np.ndarray, np.ndarray]:
    fx, fy, cx, cy = of.pinhole
    return np.meshgrid((np.arange(of.width) + 0.5 - cx) / fx, (np.arange(of.height) + 0.5 - cy) / fy)


def seen_through(of: Lens) -> np.ndarray:
    """The photo that a lens takes of the pattern; each pixel's ray is found by fixed-point iteration."""
    u, v = grid(of)
    x, y = u.copy(), v.copy()
    for _ in range(100):
        bent = of.bend(x, y)
        x, y = x + 0.8 * (u - bent[0]), y + 0.8 * (v - bent[1])
    return pattern(np.nan_to_num(x), np.nan_to_num(y))


@pytest.mark.parametrize("model", COEFFICIENTS)
def test_a_photo_through_a_lens_comes_out_straight(model):
    rgb, kept = undistorted(seen_through(lens(model)), None, lens(model))
    seen = np.ones((HEIGHT, WIDTH), bool) if kept is None else kept
    difference = np.abs(rgb.astype(int) - pattern(*grid(lens(model))))[seen]
    assert seen.mean() > 0.6
    assert np.quantile(difference, 0.99) <= 3
    assert difference.mean() < 1


def test_what_the_lens_did_not_see_is_masked():
    pincushion = Lens("SIMPLE_RADIAL", WIDTH, HEIGHT, (130.0, 80.0, 60.0, 0.3))
    _, kept = undistorted(seen_through(pincushion), None, pincushion)
    assert not kept[0, 0] and not kept[-1, -1] and kept[60, 80]
    barrel = Lens("SIMPLE_RADIAL", WIDTH, HEIGHT, (130.0, 80.0, 60.0, -0.1))
    assert undistorted(seen_through(barrel), None, barrel)[1] is None


def test_rays_beyond_the_fold_of_a_polynomial_are_masked_not_shown_twice():
    folding = Lens("SIMPLE_RADIAL", WIDTH, HEIGHT, (100.0, 80.0, 60.0, -0.9))
    assert folding.reach() == pytest.approx(np.sqrt(1 / 2.7), rel=0.03)
    _, kept = undistorted(np.zeros((HEIGHT, WIDTH, 3), np.uint8), None, folding)
    radius = np.hypot(*grid(folding))
    assert not kept[radius > 1.03 * np.sqrt(1 / 2.7)].any()


def test_masks_go_the_way_of_their_photo():
    fisheye = lens("OPENCV_FISHEYE")
    photo = seen_through(fisheye)
    marked = photo[..., 0] > 128
    rgb, kept = undistorted(photo, marked, fisheye)
    agreement = (kept == (rgb[..., 0] > 128))[20:-20, 20:-20]
    assert agreement.mean() > 0.97


@pytest.mark.parametrize("model", sorted(COEFFICIENTS))
@pytest.mark.parametrize("size", [(80, 60), (320, 240), (160, 60)])
def test_a_resized_lens_puts_rays_at_resized_pixels(model, size):
    whole, small = lens(model), lens(model).scaled(*size)
    assert small.model == (model if size[0] / 160 == size[1] / 120 else WITH_TWO_FOCALS.get(model, model))
    places = []
    for one in (whole, small):
        fx, fy, cx, cy = one.pinhole
        u, v = one.bend(*rays())
        places.append(np.stack([fx * u + cx, fy * v + cy], 1) / (one.width, one.height))
    np.testing.assert_allclose(places[0], places[1], atol=1e-12)


def test_coefficients_of_zero_are_no_distortion():
    assert not Lens("OPENCV", 8, 8, (9.0, 9.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0)).distorted
    assert Lens("OPENCV", 8, 8, (9.0, 9.0, 4.0, 4.0, 0.0, 0.0, 0.0, 1e-3)).distorted
    assert Lens("FISHEYE", 8, 8, (9.0, 9.0, 4.0, 4.0)).distorted
    assert not Lens("PINHOLE", 8, 8, (9.0, 9.0, 4.0, 4.0)).distorted

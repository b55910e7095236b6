# SPDX-License-Identifier: Apache-2.0
"""Lenses: COLMAP's camera models, and where each puts a ray.

A ray (x, y, 1) falls on u = fx x' + cx, v = fy y' + cy in pixels, where (x', y') is the bent ray and the first pixel's
centre is at (0.5, 0.5). Formulas: colmap.github.io/cameras.html and OpenCV's calib3d for the models they share; Usenko
et al. 2018 for EUCM, Fitzgibbon 2001 for the division model, Devernay and Faugeras 2001 for FOV.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

LARGEST_SIDE = 1 << 16
"""Pixels; no camera has more, but damaged files do."""

Rays = tuple[np.ndarray, np.ndarray]
Bend = Callable[..., Rays]


@dataclass(frozen=True)
class LensModel:
    """COLMAP's number, how many focal lengths and coefficients the parameters hold, how rays are bent."""

    number: int
    focals: int
    coefficients: int
    bend: Bend
    fisheye: bool = False
    straight: tuple[float, ...] | None = ()
    """First coefficients without which nothing is bent, zeros where shorter; None when rays always are."""

    @property
    def parameters(self) -> int:
        """How many numbers the model takes."""
        return self.focals + 2 + self.coefficients


@dataclass(frozen=True)
class Lens:
    """Intrinsics: model name, size in pixels, parameters in COLMAP's order."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]

    @property
    def pinhole(self) -> tuple[float, float, float, float]:
        """(fx, fy, cx, cy) in pixels of the photo without its distortion."""
        focals = LENS_MODELS[self.model].focals
        return self.parameters[0], self.parameters[focals - 1], *self.parameters[focals : focals + 2]

    @property
    def coefficients(self) -> tuple[float, ...]:
        """What bends the rays."""
        return self.parameters[LENS_MODELS[self.model].focals + 2 :]

    @property
    def distorted(self) -> bool:
        """Whether the photo has to be undistorted."""
        straight = LENS_MODELS[self.model].straight
        if straight is None:
            return True
        padded = straight + (0.0,) * len(self.coefficients)
        return any(given != none for given, none in zip(self.coefficients, padded, strict=False))

    def scaled(self, width: int, height: int) -> "Lens":
        """The same lens for a photo of another size."""
        x, y = width / self.width, height / self.height
        fx, fy, cx, cy = self.pinhole
        focals = (fx * x, fy * y) if LENS_MODELS[self.model].focals == 2 else (fx * x,)
        if len(focals) == 1 and x != y:
            model = WITH_TWO_FOCALS[self.model]
            pad = (0.0,) * (LENS_MODELS[model].coefficients - len(self.coefficients))
            parameters = (fx * x, fy * y, cx * x, cy * y, *self.coefficients, *pad)
            return Lens(model, width, height, parameters)
        return replace(self, width=width, height=height, parameters=(*focals, cx * x, cy * y, *self.coefficients))

    def bend(self, x: np.ndarray, y: np.ndarray) -> Rays:
        """Where the lens sends rays (x, y, 1); NaN where it cannot see them."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            model = LENS_MODELS[self.model]
            if model.fisheye:
                radius = np.hypot(x, y)
                turn = np.where(radius > 1e-12, np.arctan(radius) / np.maximum(radius, 1e-12), 1.0)
                x, y = x * turn, y * turn
            return model.bend(x, y, *self.coefficients)

    def reach(self) -> float:
        """Length of (x, y) up to which farther rays fall farther out; polynomials fold back beyond it."""
        return _reach(self)


def _none(x: np.ndarray, y: np.ndarray) -> Rays:
    return x, y


def _radial(x: np.ndarray, y: np.ndarray, k1: float, k2: float = 0.0, k3: float = 0.0, k4: float = 0.0) -> Rays:
    r2 = x * x + y * y
    factor = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return x * factor, y * factor


def _tangential(x: np.ndarray, y: np.ndarray, p1: float, p2: float) -> Rays:
    """What decentred elements add."""
    r2, xy = x * x + y * y, x * y
    return 2 * p1 * xy + p2 * (r2 + 2 * x * x), 2 * p2 * xy + p1 * (r2 + 2 * y * y)


def _opencv(x: np.ndarray, y: np.ndarray, k1: float, k2: float, p1: float, p2: float, *more: float) -> Rays:
    k3, k4, k5, k6 = (*more, 0.0, 0.0, 0.0, 0.0)[:4]
    r2 = x * x + y * y
    factor = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    dx, dy = _tangential(x, y, p1, p2)
    return x * factor + dx, y * factor + dy


def _fov(x: np.ndarray, y: np.ndarray, omega: float) -> Rays:
    radius = np.maximum(np.hypot(x, y), 1e-9)
    factor = np.arctan(2 * radius * np.tan(omega / 2)) / (radius * omega) if abs(omega) > 1e-6 else 1.0
    return x * factor, y * factor


def _thin_prism(
    x: np.ndarray,
    y: np.ndarray,
    k1: float,
    k2: float,
    p1: float,
    p2: float,
    k3: float,
    k4: float,
    sx: float,
    sy: float,
) -> Rays:
    r2 = x * x + y * y
    bent, (dx, dy) = _radial(x, y, k1, k2, k3, k4), _tangential(x, y, p1, p2)
    return bent[0] + dx + sx * r2, bent[1] + dy + sy * r2


def _rad_tan_thin_prism(x: np.ndarray, y: np.ndarray, *c: float) -> Rays:
    theta2 = x * x + y * y
    factor = 1 + theta2 * np.polynomial.polynomial.polyval(theta2, c[:6])
    x, y = x * factor, y * factor
    r2 = x * x + y * y
    dx, dy = _tangential(x, y, c[7], c[6])
    return x + dx + r2 * (c[8] + r2 * c[9]), y + dy + r2 * (c[10] + r2 * c[11])


def _division(x: np.ndarray, y: np.ndarray, k: float) -> Rays:
    factor = 2 / (1 + np.sqrt(1 - 4 * k * (x * x + y * y)))
    return x * factor, y * factor


def _eucm(x: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> Rays:
    depth = alpha * np.sqrt(1 + beta * (x * x + y * y)) + 1 - alpha
    return x / depth, y / depth


LENS_MODELS = {
    "SIMPLE_PINHOLE": LensModel(0, 1, 0, _none),
    "PINHOLE": LensModel(1, 2, 0, _none),
    "SIMPLE_RADIAL": LensModel(2, 1, 1, _radial),
    "RADIAL": LensModel(3, 1, 2, _radial),
    "OPENCV": LensModel(4, 2, 4, _opencv),
    "OPENCV_FISHEYE": LensModel(5, 2, 4, _radial, fisheye=True, straight=None),
    "FULL_OPENCV": LensModel(6, 2, 8, _opencv),
    "FOV": LensModel(7, 2, 1, _fov),
    "SIMPLE_RADIAL_FISHEYE": LensModel(8, 1, 1, _radial, fisheye=True, straight=None),
    "RADIAL_FISHEYE": LensModel(9, 1, 2, _radial, fisheye=True, straight=None),
    "THIN_PRISM_FISHEYE": LensModel(10, 2, 8, _thin_prism, fisheye=True, straight=None),
    "RAD_TAN_THIN_PRISM_FISHEYE": LensModel(11, 2, 12, _rad_tan_thin_prism, fisheye=True, straight=None),
    "SIMPLE_DIVISION": LensModel(12, 1, 1, _division),
    "DIVISION": LensModel(13, 2, 1, _division),
    "SIMPLE_FISHEYE": LensModel(14, 1, 0, _none, fisheye=True, straight=None),
    "FISHEYE": LensModel(15, 2, 0, _none, fisheye=True, straight=None),
    "EUCM": LensModel(16, 2, 2, _eucm, straight=None),
}
"""COLMAP's camera models that see less than a half sphere, by name."""

WITH_TWO_FOCALS = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "SIMPLE_RADIAL": "OPENCV",
    "RADIAL": "OPENCV",
    "SIMPLE_RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "SIMPLE_DIVISION": "DIVISION",
    "SIMPLE_FISHEYE": "FISHEYE",
}
"""What a model of one focal length becomes when a photo was resized differently along x and y."""


@lru_cache(maxsize=256)
def _reach(lens: Lens) -> float:
    radii = np.concatenate([[0.0], np.geomspace(1e-3, 20, 600)])
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    x, y = np.cos(angles)[:, None] * radii, np.sin(angles)[:, None] * radii
    bent = np.hypot(*lens.bend(x, y))
    with np.errstate(invalid="ignore"):
        outwards = (np.diff(bent, axis=1) > 0).all(axis=0)  # false where it is NaN
    return float("inf") if outwards.all() else float(radii[np.argmin(outwards)])

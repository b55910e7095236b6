# SPDX-License-Identifier: Apache-2.0
"""A ray caster of planes, spheres and box rooms with solid textures: photos whose depth is known exactly."""

from collections.abc import Callable, Sequence

import numpy as np

Shade = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def solid_texture(seed: int = 0, finest: float = 8.0, count: int = 24) -> Callable[[np.ndarray], np.ndarray]:
    """Colour [..., 3] as a sum of waves in space, up to `finest` cycles per unit."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(count, 3))
    waves *= (2 * np.pi * np.geomspace(0.3, finest, count) / np.linalg.norm(waves, axis=1))[:, None]
    phases, gains = rng.uniform(0, 2 * np.pi, count), rng.normal(size=(count, 3))

    def color(points: np.ndarray) -> np.ndarray:
        return np.clip(0.5 + 0.08 * np.cos(points @ waves.T + phases) @ gains, 0, 1)

    return color


def plain(value: float = 0.6) -> Callable[[np.ndarray], np.ndarray]:
    """One colour everywhere."""
    return lambda points: np.full(points.shape, value)


def sphere(center, radius: float, color) -> Shade:
    """A ball."""

    def hit(origin, rays):
        offset = origin - np.asarray(center)
        a, b, c = (rays**2).sum(-1), rays @ offset, offset @ offset - radius**2
        inside = b * b - a * c
        t = np.where(inside >= 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
        return t, color

    return hit


def plane(point, normal, color) -> Shade:
    """An infinite plane, seen from both sides."""
    normal = np.asarray(normal, dtype=np.float64)

    def hit(origin, rays):
        slope = rays @ normal
        return ((np.asarray(point) - origin) @ normal) / np.where(np.abs(slope) > 1e-9, slope, 1e-9), color

    return hit


def room(half, color, center=(0.0, 0.0, 0.0)) -> Shade:
    """The inside of a box."""
    half, center = np.asarray(half, dtype=np.float64), np.asarray(center)

    def hit(origin, rays):
        slope = np.where(np.abs(rays) > 1e-9, rays, 1e-9)
        return ((np.sign(slope) * half - (origin - center)) / slope).min(axis=-1), color

    return hit


def scene(*shapes, sky=(0.7, 0.8, 0.9)) -> Shade:
    """The nearest surface along each ray; the sky has infinite depth."""

    def shade(origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth = np.full(rays.shape[:-1], np.inf)
        rgb = np.broadcast_to(np.asarray(sky, dtype=np.float64), rays.shape).copy()
        for shape in shapes:
            t, color = shape(origin, rays)
            nearer = (t > 1e-6) & (t < depth)
            depth = np.where(nearer, t, depth)
            rgb[nearer] = color(origin + t[nearer][:, None] * rays[nearer])
        return rgb, depth

    return shade


def supersampled(shade: Shade, pixel: float, samples: Sequence[float] = (-0.25, 0.25)) -> Shade:
    """The mean colour over a pixel of the given size (at depth 1), so that fine texture does not alias."""

    def smooth(origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Two directions across the view, good enough to jitter within a pixel.
        across = np.cross(rays, rays[0, 0] + (0.3, 0.1, 0.2))
        across /= np.linalg.norm(across, axis=-1, keepdims=True)
        along = np.cross(rays / np.linalg.norm(rays, axis=-1, keepdims=True), across)
        total = sum(shade(origin, rays + pixel * (a * across + b * along))[0] for a in samples for b in samples)
        return total / len(samples) ** 2, shade(origin, rays)[1]

    return smooth

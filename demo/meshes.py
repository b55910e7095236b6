# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes of the demo scene, made in code and handed to the renderer as PLY files.

z is up, lengths are metres. A mesh is (vertices [V, 3], texture coordinates [V, 2], triangles [T, 3]).
"""

from pathlib import Path

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray, np.ndarray]


def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Two triangles for each square of a rows x columns grid of vertices."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (i * columns + j).ravel()
    return np.concatenate([np.stack([a, a + 1, a + columns], 1), np.stack([a + 1, a + columns + 1, a + columns], 1)])


def lathe(profile: list[tuple[float, float]], repeat: float = 1.0, segments: int = 64, smooth: int = 8) -> Mesh:
    """Turns a profile of (radius, height) about the z axis; Catmull-Rom between its points, v along its length."""
    p = np.asarray(profile, float)
    if smooth > 1:
        padded = np.concatenate([p[:1], p, p[-1:]])
        t = np.linspace(0, 1, smooth, endpoint=False)[:, None]
        pieces = []
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
            pieces.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
        p = np.concatenate([*pieces, p[-1:]])
    p[:, 0] = np.maximum(p[:, 0], 1e-4)  # a pole of zero radius has no normal
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))])
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    radius, height = p[:, :1], p[:, 1:]
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), height * np.ones_like(angle)], -1).reshape(
        -1, 3
    )
    v, u = np.meshgrid(along / along[-1], angle / (2 * np.pi) * repeat, indexing="ij")
    return vertices, np.stack([u, v], -1).reshape(-1, 2), grid_triangles(len(p), segments + 1)


def pipe(path: np.ndarray, radii: np.ndarray, segments: int = 20) -> Mesh:
    """A round tube along points [P, 3] with a radius at each."""
    path = np.asarray(path, float)
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, np.array([0.31, 0.95, 0.05]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None, :, None]
    ring = np.cos(angle) * side[:, None] + np.sin(angle) * other[:, None]
    vertices = (path[:, None] + np.asarray(radii)[:, None, None] * ring).reshape(-1, 3)
    v, u = np.meshgrid(np.linspace(0, 1, len(path)), np.linspace(0, 1, segments + 1), indexing="ij")
    return vertices, np.stack([u, v], -1).reshape(-1, 2), grid_triangles(len(path), segments + 1)


def box(centre, size, turn: float = 0.0, repeat: float = 1.0) -> Mesh:
    """A box with its own texture on each side; `turn` in radians about z, `repeat` textures per metre (0: one)."""
    vertices, coordinates, triangles = [], [], []
    half = np.asarray(size, float) / 2
    for axis in range(3):
        for sign in (-1, 1):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            if a == 2:  # texture v runs upwards on the sides
                a, b = b, a
            corner = np.zeros((4, 3))
            corner[:, axis] = sign * half[axis]
            corner[:, a] = np.array([-1, 1, 1, -1]) * half[a]
            corner[:, b] = np.array([-1, -1, 1, 1]) * half[b]
            unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
            scale = np.array([2 * half[a], 2 * half[b]]) * repeat if repeat else np.ones(2)
            triangles.append(np.array([[0, 1, 2], [0, 2, 3]]) + 4 * len(vertices))
            vertices.append(corner)
            coordinates.append(unit * scale)
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return (
        np.concatenate(vertices) @ rotation.T + np.asarray(centre, float),
        np.concatenate(coordinates),
        np.concatenate(triangles),
    )


def panel(origin, right, up, repeat: tuple[float, float] = (1, 1)) -> Mesh:
    """A flat rectangle from a corner and two edges."""
    origin, right, up = (np.asarray(x, float) for x in (origin, right, up))
    vertices = np.stack([origin, origin + right, origin + right + up, origin + up])
    coordinates = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * np.asarray(repeat, float)
    return vertices, coordinates, np.array([[0, 1, 2], [0, 2, 3]])


def leaves(positions: np.ndarray, outward: np.ndarray, length: float, rng: np.random.Generator) -> Mesh:
    """A bent leaf of six triangles at each position, pointing roughly outward and hanging a little."""
    count = len(positions)
    direction = outward + 0.55 * rng.normal(size=(count, 3)) - np.array([0, 0, 0.15])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    side = np.cross(direction, rng.normal(size=(count, 3)))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    size = (length * rng.uniform(0.6, 1.3, count))[:, None]
    # (along, across, sag, u, v) of a leaf's outline
    shape = np.array([[0, 0, 0, 0.5, 0], [0.4, 0.28, 0.02, 1, 0.4], [0.4, -0.28, 0.02, 0, 0.4],
                      [0.4, 0, 0.0, 0.5, 0.4], [0.75, 0.18, 0.1, 0.8, 0.75], [0.75, -0.18, 0.1, 0.2, 0.75],
                      [1.0, 0, 0.22, 0.5, 1]])  # fmt: skip
    down = np.array([0, 0, -1.0])
    vertices = (
        positions[:, None]
        + size[:, None] * (shape[None, :, :1] * direction[:, None] + shape[None, :, 1:2] * side[:, None])
        + size[:, None] * shape[None, :, 2:3] * down
    )
    square = rng.integers(0, 8, (count, 1, 2))
    coordinates = (square + 0.08 + 0.84 * shape[None, :, 3:]) / 8
    one = np.array([[0, 1, 3], [0, 3, 2], [1, 4, 3], [3, 5, 2], [3, 4, 6], [3, 6, 5]])
    triangles = (one[None] + 7 * np.arange(count)[:, None, None]).reshape(-1, 3)
    return vertices.reshape(-1, 3), coordinates.reshape(-1, 2), triangles


def bush(centre, radii, count: int, length: float, rng: np.random.Generator) -> Mesh:
    """Leaves over a lumpy ellipsoid."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    lumps = rng.normal(size=(12, 3))
    lumps /= np.linalg.norm(lumps, axis=1, keepdims=True)
    bulge = 0.7 + 0.4 * np.exp(6 * (direction @ lumps.T).max(axis=1) - 6) * rng.uniform(0.75, 1.05, count)
    positions = np.asarray(centre, float) + direction * bulge[:, None] * np.asarray(radii, float)
    return leaves(positions, direction, length, rng)


def moved(mesh: Mesh, offset) -> Mesh:
    """The mesh shifted by an offset."""
    return mesh[0] + np.asarray(offset, float), mesh[1], mesh[2]


def joined(*meshes: Mesh) -> Mesh:
    """Several meshes as one."""
    start = np.cumsum([0, *[len(m[0]) for m in meshes[:-1]]])
    return (
        np.concatenate([m[0] for m in meshes]),
        np.concatenate([m[1] for m in meshes]),
        np.concatenate([m[2] + s for m, s in zip(meshes, start, strict=True)]),
    )


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Binary PLY with texture coordinates u, v."""
    vertices, coordinates, triangles = mesh
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        + "".join(f"property float {name}\n" for name in ("x", "y", "z", "u", "v"))
        + f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.zeros(len(triangles), dtype=[("n", "u1"), ("i", "<i4", 3)])
    rows["n"], rows["i"] = 3, triangles
    body = np.concatenate([vertices, coordinates], axis=1).astype("<f4").tobytes()
    path.write_bytes(header.encode() + body + rows.tobytes())

# SPDX-License-Identifier: Apache-2.0
"""Builds the demo scene and photographs it: a painted jug on a stone plinth in a walled courtyard.

    pip install mitsuba numpy pillow        # for this script alone; the product needs no mitsuba
    python demo/make_scene.py               # writes demo/images/*.jpg and demo/sparse/0/*.bin, some minutes

Shapes, textures and sky are made in code (meshes.py, textures.py) from fixed seeds; the pictures are path-traced by
mitsuba's scalar_rgb variant, which works on a plain CPU. World axes: z up, metres, origin on the ground
under the plinth. Poses are written as COLMAP has them: camera axes x right, y down, z forward; the centre of the
first pixel at (0.5, 0.5). There is no points3D on purpose: the method starts from random points.
"""

import argparse
import itertools
import struct
import tempfile
from pathlib import Path

import meshes
import numpy as np
import textures
from PIL import Image, ImageFilter

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT, FIELD_OF_VIEW = 256, 192, 55.0  # degrees across
VIEWS_PER_ORBIT = 20
ORBITS = ((2.05, 1.10), (2.25, 1.75))  # (radius, height) in metres
TARGET = np.array([0.0, 0.0, 0.72])
SUN = np.array([-0.42, 0.80, 0.43]) / np.linalg.norm([-0.42, 0.80, 0.43])  # y up, as the sky's picture
YARD = 4.2  # half of the courtyard's side

CROSS = ((0, 1), (1, 0), (0, -1), (-1, 0))

# Light, and beside it what the denoiser steers by.
INTEGRATOR = {
    "type": "aov",
    "aovs": "albedo:albedo",
    "light": {"type": "path", "max_depth": 6},
}

# Glazed balls that tests look for in the pictures: name -> (centre, radius, colour).
BALLS = {
    "red": ((0.27, 0.12, 0.655), 0.055, (0.75, 0.04, 0.03)),
    "yellow": ((-0.16, -0.27, 0.645), 0.045, (0.90, 0.62, 0.03)),
    "green": ((-1.05, 0.55, 0.11), 0.11, (0.05, 0.38, 0.10)),
    "blue": ((0.70, -0.95, 0.10), 0.10, (0.03, 0.12, 0.55)),
}


# (place on the ground, size, kind of plant)
POTS = (
    ((-3.4, 3.3), 1.2, 1), ((0.75, 3.6), 1.0, 2), ((3.3, 3.4), 1.35, 0), ((1.35, 3.65), 0.7, 0),
    ((3.6, 1.9), 0.9, 2), ((-3.5, -3.2), 1.3, 0), ((3.4, -3.3), 1.3, 1), ((-1.3, -3.6), 0.9, 2),
    ((-2.2, -3.5), 1.1, 1), ((3.65, -1.2), 0.8, 0), ((1.9, -3.6), 0.8, 2), ((-1.55, 3.6), 0.8, 2),
)  # fmt: skip
# (place, radius of the crown), behind the walls
TREES = (
    ((-6.5, 1.5), 1.7), ((-6.2, -3.2), 1.4), ((-4.6, -6.4), 1.6), ((-1.2, -6.6), 1.4), ((2.0, -6.9), 1.8),
    ((5.2, -6.0), 1.5), ((-6.3, 5.2), 1.6), ((2.5, 6.6), 1.5), ((6.8, 0.8), 1.6),
)  # fmt: skip


class Stage:
    """Collects shapes in mitsuba's dictionary form."""

    def __init__(self, mi, folder: Path) -> None:
        self.mi, self.folder = mi, folder
        self.items: dict = {"type": "scene", "integrator": INTEGRATOR}

    def texture(self, picture: np.ndarray) -> dict:
        """A repeating picture; its top row lies at the largest v."""
        return {"type": "bitmap", "bitmap": self.mi.Bitmap(np.ascontiguousarray(picture)), "wrap_mode": "repeat"}

    def material(self, colour, gloss: float) -> dict:
        """Diffuse where gloss is 0, else under a varnish whose strength is gloss; both sides count."""
        reflectance = self.texture(colour) if isinstance(colour, np.ndarray) else {"type": "rgb", "value": colour}
        if not gloss:
            return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": reflectance}}
        varnish = {"type": "principled", "base_color": reflectance, "specular": gloss, "roughness": 0.32}
        return {"type": "twosided", "bsdf": varnish}

    def add(self, mesh: meshes.Mesh, colour, *, gloss: float = 0.0, flat: bool = False) -> None:
        """One mesh with a picture (uint8 [H, W, 3]) or a linear colour; `flat` keeps its edges sharp."""
        name = f"shape{len(self.items)}"
        meshes.write_mesh(self.folder / f"{name}.ply", mesh)
        self.items[name] = {
            "type": "ply",
            "filename": str(self.folder / f"{name}.ply"),
            "face_normals": flat,
            "flip_tex_coords": False,
            "bsdf": self.material(colour, gloss),
        }

    def ball(self, centre, radius: float, colour) -> None:
        """A glazed sphere."""
        self.items[f"shape{len(self.items)}"] = {
            "type": "sphere", "center": list(centre), "radius": radius, "bsdf": self.material(colour, 0.5),
        }  # fmt: skip


def subject(stage: Stage, rng: np.random.Generator) -> None:
    """The plinth, the jug with its lid, spout and handle, a book and a bowl."""
    sandstone = textures.stone(rng, (0.50, 0.44, 0.36), (0.80, 0.74, 0.64))
    dark = textures.stone(rng, (0.34, 0.32, 0.31), (0.62, 0.58, 0.54))
    stage.add(meshes.lathe([(0.0, 0.10), (0.52, 0.10), (0.52, 0.0)], 4, smooth=1), dark, flat=True)
    stage.add(
        meshes.lathe([(0.42, 0.10), (0.42, 0.17), (0.36, 0.20), (0.33, 0.24), (0.31, 0.36), (0.33, 0.46), (0.40, 0.50),
                      (0.42, 0.53), (0.42, 0.60)], 3, smooth=4), sandstone)  # fmt: skip
    stage.add(meshes.lathe([(0.42, 0.60), (0.0, 0.60)], 2, smooth=1), dark, flat=True)
    jug = [(0.13, 0.60), (0.14, 0.615), (0.12, 0.635), (0.19, 0.72), (0.225, 0.83), (0.205, 0.94), (0.135, 1.03),
           (0.105, 1.08), (0.125, 1.13)]  # fmt: skip
    stage.add(meshes.lathe(jug, 1.0, segments=96), textures.glaze(rng), gloss=0.6)
    lid = [(0.13, 1.13), (0.12, 1.16), (0.06, 1.195), (0.02, 1.205), (0.022, 1.225), (0.035, 1.245), (0.0, 1.27)]
    blue_glaze = textures.stone(rng, (0.05, 0.10, 0.32), (0.16, 0.30, 0.60), size=(128, 128))
    stage.add(meshes.lathe(lid, 1.0), blue_glaze, gloss=0.6)
    t = np.linspace(0, 1, 24)
    spout = np.stack([0.19 + 0.21 * t, 0 * t, 0.80 + 0.10 * t + 0.17 * t**2], 1)
    stage.add(meshes.pipe(spout, 0.052 - 0.026 * t), blue_glaze, gloss=0.6)
    angle = np.linspace(-0.45 * np.pi, 0.5 * np.pi, 32)
    handle = np.stack([-0.13 - 0.17 * np.cos(angle), 0 * angle, 0.93 + 0.14 * np.sin(angle)], 1)
    stage.add(meshes.pipe(handle, np.full(32, 0.022)), blue_glaze, gloss=0.6)
    cover = textures.cloth(rng, ((0.45, 0.10, 0.12), (0.60, 0.18, 0.14), (0.80, 0.62, 0.30)), 9)
    stage.add(meshes.box((0.10, -0.29, 0.622), (0.24, 0.17, 0.044), 0.5, 0), cover, gloss=0.2, flat=True)
    green = textures.cloth(rng, ((0.08, 0.30, 0.26), (0.15, 0.42, 0.30), (0.85, 0.80, 0.62)), 11)
    stage.add(meshes.box((0.11, -0.28, 0.662), (0.20, 0.14, 0.034), 0.15, 0), green, gloss=0.2, flat=True)
    bowl = [(0.0, 0.605), (0.05, 0.605), (0.06, 0.62), (0.10, 0.66), (0.115, 0.685), (0.105, 0.685), (0.06, 0.635),
            (0.0, 0.625)]  # fmt: skip
    clay = textures.stone(rng, (0.62, 0.30, 0.16), (0.82, 0.50, 0.30), size=(128, 128))
    stage.add(meshes.moved(meshes.lathe(bowl), (-0.10, 0.30, 0)), clay, gloss=0.3)
    for k, colour in enumerate(((0.55, 0.30, 0.02), (0.45, 0.05, 0.03), (0.30, 0.40, 0.04))):
        a = 2.1 * k + 0.4
        stage.ball((-0.10 + 0.045 * np.cos(a), 0.30 + 0.045 * np.sin(a), 0.682), 0.04, colour)
    for centre, radius, colour in BALLS.values():
        stage.ball(centre, radius, colour)


def ground_and_walls(stage: Stage, rng: np.random.Generator) -> None:
    """Cobbles, a ring of clinker, four different walls with what hangs on them."""
    y = YARD
    stage.add(meshes.panel((-9, -9, 0), (18, 0, 0), (0, 18, 0), (4.4, 4.4)), textures.cobbles(rng, 14))
    ring = textures.bricks(rng, rows=4, columns=24, low=(0.48, 0.22, 0.15), high=(0.74, 0.44, 0.32), size=(256, 1536))
    stage.add(meshes.lathe([(1.28, 0.0), (1.28, 0.012), (0.86, 0.012), (0.86, 0.0)], 2, smooth=1), ring, flat=True)

    red = textures.bricks(rng, rows=24, columns=8, low=(0.42, 0.18, 0.13), high=(0.74, 0.42, 0.30))
    stage.add(meshes.panel((-y, y, 0), (2 * y, 0, 0), (0, 0, 3.0), (4, 1.5)), red)
    ochre = textures.plaster(rng, (0.72, 0.50, 0.26), (0.93, 0.78, 0.52))
    stage.add(meshes.panel((y, y, 0), (0, -2 * y, 0), (0, 0, 3.2), (2.6, 1)), ochre)
    fence = textures.planks(rng, count=8, low=(0.26, 0.16, 0.09), high=(0.66, 0.48, 0.31))
    stage.add(meshes.panel((-y, -y, 0), (0, 2 * y, 0), (0, 0, 2.3), (6, 1)), fence)
    pale = textures.bricks(rng, rows=10, columns=5, low=(0.50, 0.46, 0.40), high=(0.82, 0.77, 0.68))
    stage.add(meshes.panel((y, -y, 0), (-2 * y, 0, 0), (0, 0, 1.3), (4, 0.62)), pale)
    coping = textures.stone(rng, (0.4, 0.38, 0.34), (0.7, 0.66, 0.6))
    stage.add(meshes.box((0, -y, 1.34), (2 * y, 0.34, 0.09), 0, 1), coping, flat=True)

    # tiles below and pictures above on the plastered wall
    stage.add(
        meshes.panel((y - 0.01, y, 0), (0, -2 * y, 0), (0, 0, 0.9)), textures.painted_tiles(rng, (3, 28)), gloss=0.4
    )
    for k, (at, low, wide, tall) in enumerate(((2.9, 1.25, 1.1, 0.85), (1.2, 1.5, 0.75, 0.6), (-0.4, 1.2, 1.2, 0.95),
                                               (-2.2, 1.35, 0.95, 0.8), (-3.5, 1.2, 0.7, 0.9))):  # fmt: skip
        stage.add(meshes.panel((y - 0.03, at + wide / 2, low), (0, -wide, 0), (0, 0, tall)), textures.landscape(rng, k),
                  gloss=0.2)  # fmt: skip
    # a door, windows with shutters and a sill in the brick wall
    jamb = textures.stone(rng, (0.6, 0.56, 0.5), (0.8, 0.77, 0.7))
    stage.add(meshes.box((-0.35, y, 1.08), (1.25, 0.1, 2.16), 0, 0), jamb, flat=True)
    stage.add(meshes.panel((-0.9, y - 0.06, 0.02), (1.1, 0, 0), (0, 0, 2.05)), textures.door(rng))
    shutter = textures.planks(rng, count=4, low=(0.12, 0.30, 0.27), high=(0.28, 0.50, 0.42), size=(256, 128))
    for at in (-2.7, 2.1):
        stage.add(meshes.panel((at - 0.5, y - 0.02, 1.0), (1.0, 0, 0), (0, 0, 1.4)), textures.window(rng), gloss=0.5)
        for side in (-0.78, 0.78):
            stage.add(meshes.box((at + side, y - 0.03, 1.7), (0.5, 0.05, 1.44), 0, 0), shutter, flat=True)
        stage.add(meshes.box((at, y - 0.1, 0.95), (1.3, 0.22, 0.08), 0, 1), shutter, flat=True)
    roof = textures.bricks(rng, rows=6, columns=14, low=(0.55, 0.22, 0.12), high=(0.80, 0.42, 0.26), size=(384, 768))
    stage.add(meshes.panel((-y, y - 0.35, 2.85), (2 * y, 0, 0), (0, 0.9, 0.55), (4, 1)), roof)
    stage.add(meshes.panel((y - 0.35, y, 3.0), (0, -2 * y, 0), (0.9, 0, 0.55), (4, 1)), roof)


def pot(stage: Stage, rng: np.random.Generator, at: tuple[float, float], size: float, kind: int) -> None:
    """A flower pot with a plant; kinds 0 bush, 1 tall, 2 with flowers."""
    clay = textures.stone(rng, (0.55, 0.26, 0.15), (0.80, 0.48, 0.32), size=(256, 256))
    profile = [
        (0.0, 0.0),
        (0.20, 0.0),
        (0.27, 0.36),
        (0.31, 0.37),
        (0.31, 0.46),
        (0.26, 0.46),
        (0.25, 0.40),
        (0.0, 0.40),
    ]
    body = meshes.lathe([(r * size, z * size) for r, z in profile], 2, smooth=1)
    stage.add(meshes.moved(body, (*at, 0)), clay, flat=False)
    greens = (((0.10, 0.26, 0.06), (0.34, 0.55, 0.18)), ((0.16, 0.30, 0.16), (0.45, 0.60, 0.36)),
              ((0.12, 0.30, 0.10), (0.40, 0.50, 0.14)))  # fmt: skip
    sheet = textures.foliage(rng, *greens[kind])
    radii = ((0.42, 0.42, 0.36), (0.28, 0.28, 0.75), (0.40, 0.40, 0.30))[kind]
    centre = (*at, size * (0.62 + 0.8 * radii[2]))
    scaled = [r * size for r in radii]
    stage.add(meshes.bush(centre, scaled, 420, 0.20 * size, rng), sheet)
    stage.add(meshes.bush(centre, [0.6 * r for r in scaled], 160, 0.2 * size, rng), sheet)
    if kind == 2:
        petals = ((0.80, 0.14, 0.22), (0.95, 0.55, 0.60)), ((0.90, 0.60, 0.10), (0.98, 0.85, 0.40))
        for low, high in petals:
            blossom = meshes.bush(centre, [1.06 * r for r in scaled], 90, 0.13 * size, rng)
            stage.add(blossom, textures.foliage(rng, low, high, size=(128, 128)))


def furniture(stage: Stage, rng: np.random.Generator) -> None:
    """Pots, crates, a barrel, a bench with cushions, a ladder, trees behind the walls."""
    for at, size, kind in POTS:
        pot(stage, rng, at, size, kind)
    oak = textures.planks(rng, count=5, low=(0.36, 0.22, 0.12), high=(0.76, 0.55, 0.34), size=(256, 256))
    grey = textures.planks(rng, count=6, low=(0.34, 0.30, 0.26), high=(0.68, 0.62, 0.54), size=(256, 256))
    for centre, size, turn, wood in (
        ((-3.45, 0.9, 0.3), (0.62, 0.62, 0.6), 0.2, oak), ((-3.4, 0.2, 0.25), (0.5, 0.6, 0.5), -0.1, grey),
        ((-3.45, 0.75, 0.82), (0.46, 0.46, 0.44), 0.7, grey), ((0.5, -3.7, 0.22), (0.7, 0.45, 0.44), 0.1, oak),
    ):  # fmt: skip
        stage.add(meshes.box(centre, size, turn, 0), wood, flat=True)
    staves = textures.planks(rng, count=20, low=(0.30, 0.17, 0.09), high=(0.62, 0.40, 0.22), size=(256, 1024))
    staves[40:56] = staves[200:216] = (70, 68, 66)
    barrel = [(0.0, 0.88), (0.30, 0.88), (0.31, 0.9), (0.38, 0.62), (0.40, 0.45), (0.38, 0.26), (0.31, 0.0)]
    stage.add(meshes.moved(meshes.lathe(barrel, 1, smooth=4), (-3.5, -1.2, 0)), staves)

    bench = [meshes.box((3.55, 0.35 + 0.0, 0.46), (0.5, 1.7, 0.06), 0, 0)]
    bench += [meshes.box((3.55, 0.35 + s, 0.22), (0.42, 0.09, 0.44), 0, 0) for s in (-0.7, 0.7)]
    bench += [meshes.box((3.80, 0.35, 0.72), (0.05, 1.7, 0.34), 0, 0)]
    stage.add(meshes.joined(*bench), oak, flat=True)
    cushions = (((0.75, 0.20, 0.15), (0.92, 0.80, 0.55), (0.20, 0.25, 0.45)), ((0.15, 0.45, 0.45), (0.90, 0.88, 0.80)))
    for at, colours, turn in ((-0.2, cushions[0], 0.1), (0.85, cushions[1], -0.15)):
        stage.add(meshes.box((3.55, at, 0.55), (0.4, 0.42, 0.12), turn, 0), textures.cloth(rng, colours), flat=True)
    for k in range(4):
        colours = tuple(tuple(c) for c in rng.uniform(0.1, 0.85, (3, 3)))
        book = meshes.box((3.52 + 0.03 * k, 0.35, 0.51 + 0.05 * k), (0.26 - 0.02 * k, 0.2, 0.05), 0.3 * k, 0)
        stage.add(book, textures.cloth(rng, colours, 7, size=(64, 64)), flat=True)

    rails = [meshes.pipe(np.linspace((-4.0, y0, 2.25), (-3.35, y0, 0), 6), np.full(6, 0.035)) for y0 in (2.0, 2.5)]
    rungs = [
        meshes.pipe(np.linspace((-4.0 + 0.65 * t, 2.0, 2.25 * (1 - t)), (-4.0 + 0.65 * t, 2.5, 2.25 * (1 - t)), 4),
                    np.full(4, 0.024)) for t in np.linspace(0.1, 0.9, 7)
    ]  # fmt: skip
    stage.add(meshes.joined(*rails, *rungs), grey)
    for k, at in enumerate((-3.0, -1.7, -0.4, 0.9, 3.4)):  # baskets on the fence
        trailing = meshes.bush((-YARD + 0.18, at, 1.55 + 0.12 * (k % 2)), (0.2, 0.36, 0.28), 260, 0.14, rng)
        stage.add(trailing, textures.foliage(rng, (0.10, 0.28, 0.08), (0.38, 0.58, 0.22)))
        petals = meshes.bush((-YARD + 0.24, at, 1.55 + 0.12 * (k % 2)), (0.2, 0.36, 0.28), 90, 0.10, rng)
        hue = ((0.75, 0.15, 0.35), (0.95, 0.80, 0.30), (0.55, 0.30, 0.75), (0.95, 0.95, 0.90), (0.90, 0.35, 0.15))[k]
        stage.add(petals, textures.foliage(rng, tuple(0.7 * c for c in hue), hue, size=(64, 64)))

    for at, size in TREES:
        crown = meshes.bush((*at, 2.6 + 0.4 * size), (size, size, 1.1 * size), 2600, 0.42, rng)
        low, high = (0.10, 0.22, 0.05), (0.42, 0.52 + 0.05 * size, 0.16)
        stage.add(crown, textures.foliage(rng, low, high))
        stage.add(meshes.pipe(np.linspace((*at, 0), (*at, 2.6), 5), np.linspace(0.2, 0.12, 5)), grey)


def build(mi, folder: Path) -> dict:
    """The whole scene, without a camera."""
    stage = Stage(mi, folder)
    for k, part in enumerate((subject, ground_and_walls, furniture)):
        part(stage, np.random.default_rng(100 + k))
    heaven = textures.sky(np.random.default_rng(7), SUN)
    stage.items["sky"] = {
        "type": "envmap",
        "bitmap": mi.Bitmap(heaven),
        "scale": 1.0,
        "to_world": mi.ScalarTransform4f().rotate([1, 0, 0], 90),
    }
    return stage.items


def poses(rng: np.random.Generator) -> list[np.ndarray]:
    """camera_from_world [4, 4] of every view: two orbits, their radii, heights and aims slightly uneven."""
    views = []
    for ring, (radius, height) in enumerate(ORBITS):
        for k in range(VIEWS_PER_ORBIT):
            angle = 2 * np.pi * (k + 0.5 * ring + rng.uniform(-0.15, 0.15)) / VIEWS_PER_ORBIT
            r, h = radius * rng.uniform(0.94, 1.06), height + rng.uniform(-0.06, 0.06)
            centre = np.array([r * np.cos(angle), r * np.sin(angle), h])
            aim = TARGET + rng.uniform(-0.05, 0.05, 3)
            views.append(look_at(centre, aim))
    return views


def look_at(centre: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Rigid camera_from_world with z forward to `aim` and the image's x axis level."""
    forward = (aim - centre) / np.linalg.norm(aim - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ centre
    return matrix


def focal_length() -> float:
    """In pixels, the same along x and y."""
    return 0.5 * WIDTH / np.tan(np.radians(FIELD_OF_VIEW) / 2)


def photograph(mi, scene, camera_from_world: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Linear radiance of one view, freed of noise, float32 [H, W, 3]."""
    world_from_camera = np.linalg.inv(camera_from_world)
    centre, forward, up = world_from_camera[:3, 3], world_from_camera[:3, 2], -world_from_camera[:3, 1]
    sensor = mi.load_dict(
        {
            "type": "perspective",
            "fov": FIELD_OF_VIEW,
            "fov_axis": "x",
            "near_clip": 0.05,
            "to_world": mi.ScalarTransform4f().look_at(list(centre), list(centre + forward), list(up)),
            "film": {"type": "hdrfilm", "width": WIDTH, "height": HEIGHT, "rfilter": {"type": "gaussian"},
                     "pixel_format": "rgb", "component_format": "float32"},
            "sampler": {"type": "multijitter", "sample_count": samples},
        }
    )  # fmt: skip
    layers = np.nan_to_num(np.array(mi.render(scene, sensor=sensor, spp=samples, seed=seed)))
    return denoised(*np.split(layers, [3], axis=2))


def denoised(radiance: np.ndarray, albedo: np.ndarray, reach: int = 3) -> np.ndarray:
    """Smooths the light but not the surfaces: an edge-stopping filter of radiance / albedo, times albedo.

    Neighbours count as far as they agree in albedo and in the brightness of their own 3 x 3 pixels.
    """
    lit = albedo.max(axis=2, keepdims=True) > 0.01  # the sky has no albedo and no noise; its edges are left alone
    lit = np.min([np.roll(lit, s, axis=(0, 1)) for s in (*CROSS, (0, 0))], axis=0)
    base = np.where(lit, np.maximum(albedo, 0.02), 1.0)
    light = radiance / base
    light = np.minimum(light, 1.5 * np.max([np.roll(light, s, axis=(0, 1)) for s in CROSS], axis=0))  # fireflies
    tone = np.log(np.mean([np.roll(light, s, axis=(0, 1)) for s in (*CROSS, (0, 0))], axis=0).mean(2) + 0.02)
    total, weights = np.zeros_like(light), np.zeros_like(lit, float)
    for shift in itertools.product(range(-reach, reach + 1), repeat=2):
        distance = (
            (shift[0] ** 2 + shift[1] ** 2) / 5.0
            + ((np.roll(albedo, shift, axis=(0, 1)) - albedo) ** 2).sum(axis=2) / 0.05
            + (np.roll(tone, shift, axis=(0, 1)) - tone) ** 2 / 0.06
        )
        weight = np.exp(-distance)[..., None]
        total += weight * np.roll(light, shift, axis=(0, 1))
        weights += weight
    return np.where(lit, base * total / weights, radiance)


def develop(radiance: np.ndarray, exposure: float) -> Image.Image:
    """A photo: exposure, a film-like curve, sRGB; single hot pixels are taken back to their neighbours."""
    x = radiance * exposure
    x = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)  # Narkowicz's fit of the ACES curve
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-8) ** (1 / 2.4) - 0.055)
    image = Image.fromarray(textures.to_picture(srgb))
    median = np.asarray(image.filter(ImageFilter.MedianFilter(3)), np.int16)
    pixels = np.asarray(image, np.int16)
    hot = (pixels - median).max(axis=2, keepdims=True) > 60
    return Image.fromarray(np.where(hot, median, pixels).astype(np.uint8))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (w, x, y, z) of a rotation matrix, w >= 0: the eigenvector of Bar-Itzhack's matrix."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    k = np.array([
        [xx - yy - zz, 0, 0, 0], [xy + yx, yy - xx - zz, 0, 0], [xz + zx, yz + zy, zz - xx - yy, 0],
        [zy - yz, xz - zx, yx - xy, xx + yy + zz],
    ])  # fmt: skip
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    return np.array([w, x, y, z]) * (1 if w >= 0 else -1)


def write_model(folder: Path, names: list[str], views: list[np.ndarray]) -> None:
    """COLMAP's binary cameras and images: one PINHOLE camera, no 2D points."""
    folder.mkdir(parents=True, exist_ok=True)
    f = focal_length()
    camera = struct.pack("<QiiQQ4d", 1, 1, 1, WIDTH, HEIGHT, f, f, WIDTH / 2, HEIGHT / 2)
    (folder / "cameras.bin").write_bytes(camera)
    records = [struct.pack("<Q", len(names))]
    for k, (name, view) in enumerate(zip(names, views, strict=True)):
        pose = (*quaternion(view[:3, :3]), *view[:3, 3])
        records.append(struct.pack("<i7di", k + 1, *pose, 1) + name.encode() + b"\0" + struct.pack("<Q", 0))
    (folder / "images.bin").write_bytes(b"".join(records))


def main() -> None:
    """Renders every view and writes the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="dataset folder to write")
    parser.add_argument("--samples", type=int, default=16, help="paths per pixel")
    parser.add_argument("--views", type=int, nargs="*", help="only these, to judge a change")
    options = parser.parse_args()
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    views = poses(np.random.default_rng(11))
    names = [f"courtyard_{k:02d}.jpg" for k in range(len(views))]
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    write_model(options.out / "sparse" / "0", names, views)
    with tempfile.TemporaryDirectory() as folder:
        scene = mi.load_dict(build(mi, Path(folder)))
        for k in options.views if options.views else range(len(views)):
            radiance = photograph(mi, scene, views[k], options.samples, seed=k)
            path = options.out / "images" / names[k]
            develop(radiance, exposure=1.25).save(path, quality=92)
            print(path, flush=True)


if __name__ == "__main__":
    main()

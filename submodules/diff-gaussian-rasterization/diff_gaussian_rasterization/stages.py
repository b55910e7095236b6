# SPDX-License-Identifier: Apache-2.0
"""The three native stages over torch tensors: project, bin, blend. No autograd here; see ops.py.

All memory is torch's; the native side gets addresses. `v_x` is the gradient of `x`.
"""

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch

from . import _native, native
from .later import Fetched
from .view import Room, View

SPLAT_FIELDS = 16  # columns of `Projected.splats`, see csrc/splat.h
SLOT_FIELDS = 16
STAT_FIELDS = 3


def address(tensor: torch.Tensor | None) -> int:
    """Where a contiguous tensor's data lies; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def fill(struct: object, **tensors: torch.Tensor | None) -> None:
    """Set pointer fields of a native struct."""
    for name, tensor in tensors.items():
        setattr(struct, name, address(tensor))


def split_sh(struct: object, shs: torch.Tensor) -> None:
    """Point sh_dc and sh_rest of a native struct into rows of one [N, K, 3] tensor."""
    struct.sh_dc = address(shs)
    struct.sh_rest = address(shs) + 3 * shs.element_size()


@dataclass(frozen=True)
class Gaussians:
    """Contiguous parameter tensors of one dtype; see `rasterize` for shapes and units."""

    means: torch.Tensor
    quats: torch.Tensor | None
    scales: torch.Tensor | None
    opacities: torch.Tensor
    sh_dc: torch.Tensor | None
    sh_rest: torch.Tensor | None
    colors: torch.Tensor | None
    covs: torch.Tensor | None
    shs: torch.Tensor | None = None  # [N, K, 3]: sh_dc and sh_rest in one

    def native(self, settings: "Settings") -> "_native.Gaussians":
        """The same for the native stages."""
        g = settings.module.Gaussians()
        g.count = self.means.shape[0]
        g.rest = 0 if self.sh_rest is None else self.sh_rest.shape[1]
        g.degree = settings.sh_degree
        g.scale_modifier, g.mult, g.raw = settings.scale_modifier, settings.mult, settings.raw
        g.rest_stride = 3 * g.rest
        fill(g, means=self.means, quats=self.quats, scales=self.scales, opacities=self.opacities)
        fill(g, sh_dc=self.sh_dc, sh_rest=self.sh_rest, colors=self.colors, covs=self.covs)
        if self.shs is not None:
            g.rest = self.shs.shape[1] - 1
            g.dc_stride = g.rest_stride = 3 * self.shs.shape[1]
            split_sh(g, self.shs)
        if g.rest == 0:
            g.sh_rest = 0
        return g


@dataclass(frozen=True)
class Settings:
    """How to draw; everything that is not a tensor of Gaussians."""

    view: View
    sh_degree: int = 0
    scale_modifier: float = 1.0
    mult: float = 1.0
    raw: bool = False
    threads: int = 0
    module: ModuleType = _native
    """Of the device on which the tensors are, see native.py."""

    @cached_property
    def camera(self) -> "_native.Camera":
        """The view for the native stages, built once."""
        return self.view.native(self.module)

    def launch(self, dtype: torch.dtype) -> "_native.Launch":
        """CPU: instruction set (environment variable DGR_ISA, else the best), threads, precision. CUDA: the stream."""
        return native.launch(self.module, self.threads, dtype)


@dataclass(frozen=True)
class Projected:
    """Splats on the image plane."""

    splats: torch.Tensor  # [N, 16]: rows are undefined where radii are 0
    radii: torch.Tensor  # [N] int32, px


def project(settings: Settings, gaussians: Gaussians) -> Projected:
    """Project every Gaussian; see csrc/math/project.h."""
    means = gaussians.means
    splats = means.new_empty(len(means), SPLAT_FIELDS)
    radii = means.new_empty(len(means), dtype=torch.int32)
    out = settings.module.ProjectOutputs()
    fill(out, splats=splats, radii=radii)
    settings.module.project(settings.launch(means.dtype), settings.camera, gaussians.native(settings), out)
    return Projected(splats, radii)


def project_adjoint(
    settings: Settings,
    gaussians: Gaussians,
    projected: Projected,
    bins: "Bins",
    slots: torch.Tensor,
    reached: torch.Tensor,
    wanted: dict[str, torch.Tensor],
) -> None:
    """Fill the gradients in `wanted` (by parameter name, and `means2d` [N, 2 to 4]) from the blend adjoint's slots."""
    out = settings.module.ProjectGradients()
    fill(out, slots=slots, reached=reached, slot_ranges=bins.slot_ranges)
    fill(out, **{name: tensor for name, tensor in wanted.items() if name != "shs"})
    if "shs" in wanted:
        split_sh(out, wanted["shs"])
    if "means2d" in wanted:
        out.means2d_columns = wanted["means2d"].shape[1]
    settings.module.project_adjoint(
        settings.launch(gaussians.means.dtype),
        settings.camera,
        gaussians.native(settings),
        address(projected.splats),
        address(projected.radii),
        out,
    )


@dataclass(frozen=True)
class Bins:
    """Which splat touches which blocks of which tile."""

    grid: "_native.Grid"
    tile_offsets: torch.Tensor  # [tiles + 1] int32: entries of tile t are [t], [t + 1]
    entry_ids: torch.Tensor  # [entries] int32: by tile, then depth, ties by index
    entry_slots: torch.Tensor  # [entries] int32: where the entry's sums go
    entry_masks: torch.Tensor  # [entries] a bit for each block of the tile; int64, on CUDA uint8 (csrc/bin.h)
    slot_ranges: torch.Tensor  # [N, 2] int32: first and number of a Gaussian's slots
    slots: int  # room for them; they lie in order of Gaussians, with gaps
    counted: Fetched | None = None  # how many entries a card has found for which `slots` was a guess

    def settled(self, room: Room) -> "Bins | None":
        """The bins without what was too much, None where the guess was too low; waits for a card to have counted."""
        if self.counted is None:
            return self
        (entries,) = self.counted.tolist()
        room.entries = entries
        if entries > self.slots:
            return None
        listed = (array[:entries] for array in (self.entry_ids, self.entry_slots, self.entry_masks))
        return Bins(self.grid, self.tile_offsets, *listed, self.slot_ranges, entries)


def grid_of(settings: Settings, launch: "_native.Launch") -> "_native.Grid":
    """The tiles of the view's image, in the size of the instruction set in use."""
    grid = settings.module.Grid()
    grid.width, grid.height = int(settings.view.width), int(settings.view.height)
    grid.tile_width, grid.tile_height = launch.tile_width, launch.tile_height
    return grid


def bin_splats(settings: Settings, projected: Projected, *, guess: bool = False) -> Bins:
    """Sort by depth, then by tile.

    On a card the host must wait for the number of entries, unless it may `guess` it from the view's last picture;
    then the bins are to be `settled` when all work is on its way.
    """
    module, launch = settings.module, settings.launch(projected.splats.dtype)
    grid = grid_of(settings, launch)
    count, like = len(projected.radii), projected.radii  # int32 on the device

    args = module.BinArgs()
    args.grid, args.count = grid, count
    order, slot_ranges, tile_offsets = like.new_empty(count), like.new_empty(count, 2), like.new_empty(grid.tiles + 1)
    firsts = None if module is _native else like.new_empty(count + 1)
    fill(args, splats=projected.splats, radii=like, order=order, slot_ranges=slot_ranges, firsts=firsts)
    sort_scratch = scratch(module, args, "sort_scratch", like, 0)
    sizes = module.bin_sort(launch, args)
    counted = None if firsts is None else Fetched(firsts[-1:])
    if counted is not None:
        guessed = settings.view.room.capacity if guess else None
        (sizes.capacity,) = counted.tolist() if guessed is None else [guessed]
    capacity = sizes.capacity
    emitted = like.new_empty(3, capacity)
    mask_words = torch.int64 if module is _native else torch.uint8
    emitted_masks, entry_masks = (like.new_empty(capacity, dtype=mask_words) for _ in range(2))
    entry_slots, entry_ids = like.new_empty(capacity), like.new_empty(capacity)
    row = capacity * emitted.element_size()
    args.emitted_tiles, args.emitted_ids, args.emitted_slots = (address(emitted) + i * row for i in range(3))
    fill(args, emitted_masks=emitted_masks, tile_offsets=tile_offsets)
    fill(args, entry_ids=entry_ids, entry_slots=entry_slots, entry_masks=entry_masks)
    fill_scratch = scratch(module, args, "fill_scratch", like, capacity)
    entries = module.bin_fill(launch, args, sizes)
    del sort_scratch, fill_scratch  # torch gives memory of the stream to later work only
    listed = (array[:entries] for array in (entry_ids, entry_slots, entry_masks))
    return Bins(grid, tile_offsets, *listed, slot_ranges, capacity, counted)


def scratch(
    module: ModuleType, args: "_native.BinArgs", name: str, like: torch.Tensor, capacity: int
) -> torch.Tensor | None:
    """Memory that the CUDA backend sorts in; the CPU brings its own."""
    if module is _native or not args.count:
        return None
    memory = like.new_empty(module.bin_scratch(args.grid, args.count, capacity), dtype=torch.uint8)
    fill(args, **{name: memory})
    return memory


@dataclass
class Blended:
    """Images of one view; None what was not asked for."""

    image: torch.Tensor  # [3, H, W]
    alpha: torch.Tensor | None  # [H, W]
    depth: torch.Tensor | None = None
    median_depth: torch.Tensor | None = None
    inverse_depth: torch.Tensor | None = None
    features: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    largest_weights: torch.Tensor | None = None
    summed_weights: torch.Tensor | None = None


def blend_inputs(
    settings: Settings,
    projected: Projected,
    bins: Bins,
    background: torch.Tensor | None,
    features: torch.Tensor | None,
    channels: int,
) -> "_native.BlendInputs":
    """What both directions of blending read."""
    inputs = settings.module.BlendInputs()
    inputs.grid, inputs.channels = bins.grid, channels
    fill(inputs, splats=projected.splats, features=features, background=background)
    fill(inputs, tile_offsets=bins.tile_offsets, entry_ids=bins.entry_ids)
    fill(inputs, entry_slots=bins.entry_slots, entry_masks=bins.entry_masks)
    return inputs


def blend(
    settings: Settings,
    projected: Projected,
    bins: Bins,
    background: torch.Tensor,
    features: torch.Tensor | None = None,
    *,
    want_alpha: bool = True,
    want_depth: bool = False,
    want_inverse_depth: bool = False,
    want_stats: bool = False,
    count_mask: torch.Tensor | None = None,
) -> Blended:
    """Blend the splats front to back."""
    height, width = bins.grid.height, bins.grid.width
    dtype = projected.splats.dtype

    def plane(*channels: int) -> torch.Tensor:
        return projected.splats.new_empty(*channels, height, width)

    channels = 0 if features is None else features.shape[1]
    inputs = blend_inputs(settings, projected, bins, background, features, channels)
    result = Blended(plane(3), plane() if want_alpha else None)
    if want_depth:
        result.depth, result.median_depth = plane(), plane()
    if want_inverse_depth:
        result.inverse_depth = plane()
    if features is not None:
        result.features = plane(channels)
    stats = None
    if want_stats or count_mask is not None:
        stats = projected.splats.new_zeros(bins.slots, STAT_FIELDS)
    out = settings.module.BlendOutputs()
    fill(out, image=result.image, alpha=result.alpha, depth=result.depth, median_depth=result.median_depth)
    fill(out, inverse_depth=result.inverse_depth, features=result.features, count_mask=count_mask, stats=stats)
    launch = settings.launch(dtype)
    settings.module.blend(launch, inputs, out)
    if stats is not None:
        reduce_stats(settings.module, launch, bins, stats, result)
    return result


def bin_and_blend(settings: Settings, projected: Projected, *inputs: Any, **wants: Any) -> tuple[Bins, Blended]:
    """Both stages; a card blends while the host learns how many entries there are, and anew if it guessed too few."""
    while True:
        guess = bin_splats(settings, projected, guess=True)
        blended = blend(settings, projected, guess, *inputs, **wants)
        if bins := guess.settled(settings.view.room):
            return bins, blended


def reduce_stats(
    module: ModuleType, launch: "_native.Launch", bins: Bins, stats: torch.Tensor, result: Blended
) -> None:
    """Per-Gaussian statistics from those of its slots."""
    count = len(bins.slot_ranges)
    result.summed_weights, result.largest_weights = stats.new_empty(count), stats.new_empty(count)
    result.counts = stats.new_empty(count, dtype=torch.int32)
    outputs = (result.summed_weights, result.largest_weights, result.counts)
    module.reduce_stats(launch, count, *map(address, (bins.slot_ranges, stats, *outputs)))


@dataclass(frozen=True)
class BlendGradients:
    """Gradients of `Blended`, None for zero."""

    image: torch.Tensor | None = None
    alpha: torch.Tensor | None = None
    depth: torch.Tensor | None = None
    inverse_depth: torch.Tensor | None = None
    features: torch.Tensor | None = None


def blend_adjoint(
    settings: Settings,
    projected: Projected,
    bins: Bins,
    features: torch.Tensor | None,
    blended: Blended | None,
    v: BlendGradients,
    *,
    absolute: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Slots [slots, 16], which of them were reached, and the gradient of the features [N, C]."""
    dtype = projected.splats.dtype
    channels = 0 if v.features is None else v.features.shape[0]
    inputs = blend_inputs(settings, projected, bins, None, features, channels)
    slots = projected.splats.new_empty(bins.slots, SLOT_FIELDS)
    reached = projected.splats.new_zeros(bins.slots, dtype=torch.uint8)
    slot_features = slots.new_zeros(bins.slots, channels) if channels else None
    args = settings.module.BlendGradients()
    args.absolute = absolute
    if blended is not None:
        fill(args, image=blended.image, alpha=blended.alpha, depth=blended.depth)
        fill(args, inverse_depth=blended.inverse_depth, features=blended.features)
    fill(args, v_image=v.image, v_alpha=v.alpha, v_depth=v.depth)
    fill(args, v_inverse_depth=v.inverse_depth, v_features=v.features)
    fill(args, slots=slots, reached=reached, slot_features=slot_features)
    launch = settings.launch(dtype)
    settings.module.blend_adjoint(launch, inputs, args)
    v_features = None
    if slot_features is not None:
        count = len(bins.slot_ranges)
        v_features = slots.new_empty(count, channels)
        tables = map(address, (bins.slot_ranges, reached, slot_features))
        settings.module.sum_slots(launch, count, *tables, channels, address(v_features))
    return slots, reached, v_features

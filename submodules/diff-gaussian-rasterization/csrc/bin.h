// SPDX-License-Identifier: Apache-2.0
// What a backend offers for the second stage: which splat touches which blocks of which tile, in depth order.
#pragma once

#include <cstdint>

namespace dgr {

struct Grid {
    int width = 0, height = 0;                  // px
    int tile_width = 0, tile_height = 0;
    int across() const { return (width + tile_width - 1) / tile_width; }
    int down() const { return (height + tile_height - 1) / tile_height; }
    int tiles() const { return across() * down(); }
};

struct BinArgs {
    Grid grid;
    int64_t count = 0;
    const void* splats = nullptr;
    const int32_t* radii = nullptr;
    uint32_t* order = nullptr;                  // [N]: visible Gaussians by depth, ties by index
    // A slot is where one (tile, Gaussian) pair's sums go. Slots lie in order of Gaussians, with gaps.
    uint32_t* slot_ranges = nullptr;            // [N, 2]: a Gaussian's first slot and their number
    // Emission order: Gaussians by depth, tiles row by row. Capacity = sum of bounding-box tiles.
    uint32_t* emitted_tiles = nullptr;
    uint32_t* emitted_ids = nullptr;
    void* emitted_masks = nullptr;              // of words as in entry_masks
    uint32_t* emitted_slots = nullptr;
    // Entries: by tile, then depth.
    uint32_t* tile_offsets = nullptr;           // [tiles + 1]
    uint32_t* entry_ids = nullptr;
    uint32_t* entry_slots = nullptr;
    // A bit for each block, set where touched. CPU: 64-bit words, bit 8 row + column; CUDA: bytes, 2 row + column.
    void* entry_masks = nullptr;
    // CUDA only: [N + 1], the first slot of each Gaussian in order of depth, and the number of entries.
    uint32_t* firsts = nullptr;
    // CUDA only: memory of bin_sort and of bin_fill; see bin_scratch.
    void* sort_scratch = nullptr;
    void* fill_scratch = nullptr;
};

struct BinSizes {
    int64_t visible = 0;
    int64_t capacity = 0;
};

}  // namespace dgr

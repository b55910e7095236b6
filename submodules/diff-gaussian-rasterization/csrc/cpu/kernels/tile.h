// SPDX-License-Identifier: Apache-2.0
// What both directions of blending share: a tile's pixels and lists. One pair's maths is in ../../math/pair.h.
//
// A tile is 8 x 8 blocks; a block is 4 pixels wide and lanes / 4 high, so that it fills one pack.
#pragma once

#include "../../blend.h"
#include "../../math/pair.h"
#include "../../math/tile_size.h"

namespace dgr::DGR_ISA {

constexpr int kBlocks = kBlocksAcross * kBlocksAcross;
constexpr int kAhead = 8;    // entries whose splats are fetched into the cache before their turn
constexpr int kLine = 64;    // bytes
constexpr int kRescan = 32;  // entries between two looks for blocks that have stopped

template <class P>
struct Tile : TileSize<P> {
    using S = typename P::Scalar;
    using TileSize<P>::block_height;
    using TileSize<P>::width;
    using TileSize<P>::height;

    int x0, y0, image_width, image_height;
    int64_t pixels;

    DGR_HD Tile(const Grid& grid, int index)
        : x0(index % grid.across() * width), y0(index / grid.across() * height),
          image_width(grid.width), image_height(grid.height), pixels(int64_t(grid.width) * grid.height) {}

    DGR_HD int block_x(int block) const { return x0 + block % kBlocksAcross * kBlockWidth; }
    DGR_HD int block_y(int block) const { return y0 + block / kBlocksAcross * block_height; }
    DGR_HD bool starts_inside(int block) const {
        return block_x(block) < image_width && block_y(block) < image_height;
    }
    DGR_HD bool lies_inside(int block) const {
        return block_x(block) + kBlockWidth <= image_width && block_y(block) + block_height <= image_height;
    }
    DGR_HD int64_t offset(int block) const { return int64_t(block_y(block)) * image_width + block_x(block); }

    // Calls f(lane, offset of that lane's pixel) for the lanes inside the image.
    template <class F>
    DGR_HD void each_pixel(int block, F f) const {
        for (int lane = 0; lane < P::lanes; ++lane) {
            const int x = block_x(block) + lane % kBlockWidth, y = block_y(block) + lane / kBlockWidth;
            if (x < image_width && y < image_height) f(lane, int64_t(y) * image_width + x);
        }
    }
    // A block of one image plane <-> lanes. Lanes outside read 0.
    DGR_HD P read(int block, const S* plane) const {
        if (lies_inside(block)) return P::load_rows(plane + offset(block), image_width);
        S lanes[P::lanes] = {};
        each_pixel(block, [&](int lane, int64_t at) { lanes[lane] = plane[at]; });
        return P::load(lanes);
    }
    // Asks for the tile's part of image planes before its turn: hardware does not guess lines so far apart.
    template <bool kWrite>
    DGR_HD void prefetch(const void* planes, int count) const {
        const int right = x0 + width < image_width ? x0 + width : image_width;
        const int below = y0 + height < image_height ? y0 + height : image_height;
        for (int c = 0; c < count; ++c)
            for (int y = y0; y < below; ++y) {
                const S* row = static_cast<const S*>(planes) + c * pixels + int64_t(y) * image_width;
                for (int x = x0; x < right; x += kLine / int(sizeof(S))) __builtin_prefetch(row + x, kWrite);
            }
    }
    DGR_HD void write(int block, P value, S* plane) const {
        if (lies_inside(block)) return value.store_rows(plane + offset(block), image_width);
        S lanes[P::lanes];
        value.store(lanes);
        each_pixel(block, [&](int lane, int64_t at) { plane[at] = lanes[lane]; });
    }
    // Before anything is drawn: transmittance 1, and -1 (stopped) outside the image.
    DGR_HD void start(int block, BlockPixels<P>& pixels) const {
        P(lies_inside(block) ? S(1) : S(-1)).store(pixels.t);
        if (!lies_inside(block)) each_pixel(block, [&](int lane, int64_t) { pixels.t[lane] = S(1); });
        for (int lane = 0; lane < P::lanes; ++lane) {
            pixels.x[lane] = S(block_x(block) - x0 + lane % kBlockWidth) + S(0.5);
            pixels.y[lane] = S(block_y(block) - y0 + lane / kBlockWidth) + S(0.5);
        }
    }
};

DGR_HD uint64_t entry_mask(const BlendInputs& in, uint32_t entry) {
    return static_cast<const uint64_t*>(in.entry_masks)[entry];
}

template <class S>
DGR_HD void prefetch_splat(const BlendInputs& in, uint32_t entry) {
    __builtin_prefetch(static_cast<const S*>(in.splats) + int64_t(kSplatFields) * in.entry_ids[entry]);
}

// The blocks of a tile that some entry of [begin, end) covers. The others show the background and have no gradients.
template <class P>
DGR_HD uint64_t covered(const Tile<P>& tile, const BlendInputs& in, uint32_t begin, uint32_t end) {
    uint64_t result = 0;
    for (uint32_t e = begin; e < end; ++e) result |= entry_mask(in, e);
    for (int b = 0; b < kBlocks; ++b)
        if (!tile.starts_inside(b)) result &= ~(1ull << b);
    return result;
}

// Where an entry's sums go: a row of an array over slots, null if the array is.
template <class S>
DGR_HD S* slot_row(void* array, int fields, const BlendInputs& in, uint32_t entry) {
    return array ? static_cast<S*>(array) + int64_t(fields) * in.entry_slots[entry] : nullptr;
}

// The blocks of `live` that still have a pixel to draw.
template <class P, class State>
DGR_HD uint64_t still_live(uint64_t live, const State* state) {
    uint64_t result = 0;
    for (; live; live &= live - 1) {
        const int block = __builtin_ctzll(live);
        if (sign_bits(P::load(state[block].t)) != (1u << P::lanes) - 1) result |= 1ull << block;
    }
    return result;
}

// Memory for the channels of one tile; the fast kernels need none.
template <class S>
struct Scratch {
    S* data;
    explicit Scratch(int64_t size) : data(static_cast<S*>(__builtin_malloc(size * sizeof(S) + 1))) {
        for (int64_t i = 0; i < size; ++i) data[i] = S(0);
    }
    ~Scratch() { __builtin_free(data); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
};

}  // namespace dgr::DGR_ISA

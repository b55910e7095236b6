// SPDX-License-Identifier: Apache-2.0
// What both directions of blending share: a tile's geometry and one pair's opacity.
//
// A tile is 8 x 8 blocks; a block is 4 pixels wide and lanes / 4 high, so that it fills one pack. Pixel rules:
// alpha = min(0.99, opacity G), pairs below 1/255 (or the compact box) are skipped, and a pixel stops before the
// pair that would take its transmittance below 1e-4. A pixel that has stopped carries its transmittance negated:
// every later product is then negative too and fails the same comparison.
#pragma once

#include "../../blend.h"
#include "../../math/constants.h"
#include "../../splat.h"
#include "../simd/rows.h"
#include "geometry.h"

namespace dgr::DGR_ISA {

constexpr int kBlocks = kBlocksAcross * kBlocksAcross;
constexpr int kAhead = 8;    // entries whose splats are fetched into the cache before their turn
constexpr int kRescan = 32;  // entries between two looks for blocks that have stopped

// Pixels of one block: centres relative to the tile, and transmittance.
template <class P>
struct BlockPixels {
    typename P::Scalar x[P::lanes], y[P::lanes], t[P::lanes];
};

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
    DGR_HD void read(int block, const S* plane, S* lanes) const {
        if (lies_inside(block)) {
            for (int r = 0; r < block_height; ++r)
                __builtin_memcpy(lanes + kBlockWidth * r, plane + offset(block) + int64_t(r) * image_width,
                                 kBlockWidth * sizeof(S));
            return;
        }
        for (int lane = 0; lane < P::lanes; ++lane) lanes[lane] = S(0);
        each_pixel(block, [&](int lane, int64_t at) { lanes[lane] = plane[at]; });
    }
    DGR_HD void write(int block, const S* lanes, S* plane) const {
        if (lies_inside(block)) {
            for (int r = 0; r < block_height; ++r)
                __builtin_memcpy(plane + offset(block) + int64_t(r) * image_width, lanes + kBlockWidth * r,
                                 kBlockWidth * sizeof(S));
            return;
        }
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

// One splat's constants in all lanes.
template <class P>
struct Splat {
    P x, y, l1, l2, l3, log2_opacity, log2_cut, red, green, blue;

    DGR_HD Splat(const typename P::Scalar* row, const Tile<P>& tile)
        : x(row[kX] - typename P::Scalar(tile.x0)), y(row[kY] - typename P::Scalar(tile.y0)),
          l1(row[kL1]), l2(row[kL2]), l3(row[kL3]),
          log2_opacity(row[kLog2Opacity]), log2_cut(row[kLog2Cut]),
          red(row[kRed]), green(row[kGreen]), blue(row[kBlue]) {}
};

template <class S>
DGR_HD void prefetch_splat(const BlendInputs& in, uint32_t entry) {
    __builtin_prefetch(static_cast<const S*>(in.splats) + int64_t(kSplatFields) * in.entry_ids[entry]);
}

// Where an entry's sums go: a row of an array over slots, null if the array is.
template <class S>
DGR_HD S* slot_row(void* array, int fields, const BlendInputs& in, uint32_t entry) {
    return array ? static_cast<S*>(array) + int64_t(fields) * in.entry_slots[entry] : nullptr;
}

// One block under one splat.
template <class P>
struct Pair {
    P p, s;          // whitened offsets
    P unclamped;     // opacity times the Gaussian; without meaning where !counts
    typename P::Mask counts;
    P alpha;         // 0 where !counts

    DGR_HD Pair(const Splat<P>& splat, const BlockPixels<P>& pixels) {
        using S = typename P::Scalar;
        const P dx = P::load(pixels.x) - splat.x, dy = P::load(pixels.y) - splat.y;
        p = fma(splat.l1, dx, splat.l2 * dy);
        s = splat.l3 * dy;
        const P q = fnma(s, s, fnma(p, p, splat.log2_opacity));
        counts = q >= splat.log2_cut;
        unclamped = exp2_bounded(q);
        alpha = keep(counts, min(unclamped, P(S(kAlphaMax))));
    }
};

// Blends alpha into a block's transmittance. Returns the weight, 0 where the pixel stops or has stopped.
template <class P>
DGR_HD P advance(BlockPixels<P>& pixels, P alpha, typename P::Mask& blended) {
    const P before = P::load(pixels.t);
    const P weight = alpha * before;
    const P after = before - weight;
    blended = after >= P(typename P::Scalar(kTransmittanceStop));
    select(blended, after, negative(before)).store(pixels.t);
    return keep(blended, weight);
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

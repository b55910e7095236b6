// SPDX-License-Identifier: Apache-2.0
// Splats -> (tile, blocks) pairs, in the order given.
//
// Plan: for each tile of the splat's bounding box, for each of its 8 rows of blocks at once (one pack or two),
// the exact horizontal extent of the ellipse inside that band of pixel rows; from it the first and last block.
// The extents are widened a little: a block too many costs time, a block too few would be wrong.
#pragma once

#include "../../bin.h"
#include "../../math/constants.h"
#include "../../splat.h"
#include "../simd/rows.h"
#include "geometry.h"

namespace dgr::DGR_ISA {

struct TileBox {
    int x0, x1, y0, y1;  // inclusive
    int count() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
};

constexpr double kSlack = 2e-3;       // px; far above rounding, far below a block
constexpr int kEmitAhead = 12;            // splats fetched into the cache before their turn
constexpr double kLimitSlack = 1e-4;  // of log2(alpha); keeps chords right where the ellipse ends

template <int kTileSize, class S>
DGR_HD int tile_of(S position, int pixels) {
    // Bound first: a position may be far beyond any integer.
    const S last = S(pixels - 1);
    const S inside = position < S(0) ? S(0) : (position > last ? last : position);
    return int(unsigned(inside) / unsigned(kTileSize));
}

template <class P>
DGR_HD TileBox tile_box(const Grid& grid, const typename P::Scalar* splat) {
    using S = typename P::Scalar;
    constexpr int kWidth = TileSize<P>::width, kHeight = TileSize<P>::height;
    const S rx = splat[kReachX] + S(kSlack), ry = splat[kReachY] + S(kSlack);
    return {tile_of<kWidth>(splat[kX] - rx, grid.width), tile_of<kWidth>(splat[kX] + rx, grid.width),
            tile_of<kHeight>(splat[kY] - ry, grid.height), tile_of<kHeight>(splat[kY] + ry, grid.height)};
}

// The ellipse's constants, broadcast once per splat.
template <class P>
struct Ellipse {
    P limit, l2, l3, inverse_l1, reach_y, lean;
    typename P::Scalar x, y;

    DGR_HD explicit Ellipse(const typename P::Scalar* splat)
        : limit(splat[kLog2Opacity] - splat[kLog2Cut] + typename P::Scalar(kLimitSlack)),
          l2(splat[kL2]), l3(splat[kL3]),
          inverse_l1(typename P::Scalar(1) / splat[kL1]),
          reach_y(splat[kReachY] + typename P::Scalar(kSlack)),
          lean(splat[kLean]),
          x(splat[kX]), y(splat[kY]) {}

    // Half chord through the height dy: (l1 dx + l2 dy)^2 + (l3 dy)^2 = limit.
    DGR_HD P half_chord(P dy) const {
        const P s = l3 * dy;
        return sqrt(max(fnma(s, s, limit), P(0))) * inverse_l1;
    }
};

// Blocks of one tile that the ellipse touches; bit 8 row + column.
template <class P>
DGR_HD uint64_t covered_blocks(const Ellipse<P>& e, typename P::Scalar tile_x, typename P::Scalar tile_y) {
    using S = typename P::Scalar;
    constexpr int block_height = TileSize<P>::block_height;
    constexpr S kRow[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    uint64_t mask = 0;
    for (int row = 0; row < kBlocksAcross; row += P::lanes) {
        // Pixel centres of the band, relative to the mean.
        P top = fma(P::load(kRow) + P(S(row)), P(S(block_height)), P(tile_y + S(0.5) - e.y));
        P bottom = top + P(S(block_height - 1));
        const auto touched = (e.reach_y >= top) & (bottom >= -e.reach_y);
        top = max(top, -e.reach_y);
        bottom = min(bottom, e.reach_y);
        const P at_right = min(max(e.lean, top), bottom), at_left = min(max(-e.lean, top), bottom);
        const P origin(e.x - tile_x - S(0.5)), slack{S(kSlack)};
        const P slant = e.l2 * e.inverse_l1;
        const P right = fnma(slant, at_right, e.half_chord(at_right)) + origin + slack;
        const P left = -fma(slant, at_left, e.half_chord(at_left)) + origin - slack;
        // Columns of pixel centres, then blocks; beyond the tile the range is empty.
        const P block{S(1.0 / kBlockWidth)}, columns{S(kBlocksAcross)};
        const P first = min(floor(max(ceil(left), P(0)) * block), columns);
        const P last = max(min(floor(right * block), columns - P(1)), P(-1));
        mask |= bit_ranges(touched, first, last) << (kBlocksAcross * row);
    }
    return mask;
}

template <class P>
uint32_t emit(const BinArgs& a, int64_t begin, int64_t end, uint32_t at, uint32_t* tile_counts) {
    using S = typename P::Scalar;
    const S* splats = static_cast<const S*>(a.splats);
    const int across = a.grid.across();
    for (int64_t k = begin; k < end; ++k) {
        const uint32_t id = a.order[k];
        __builtin_prefetch(splats + int64_t(kSplatFields) * a.order[k + kEmitAhead < end ? k + kEmitAhead : k]);
        const S* splat = splats + int64_t(kSplatFields) * id;
        const Ellipse<P> ellipse(splat);
        const TileBox box = tile_box<P>(a.grid, splat);
        uint32_t slot = a.slot_ranges[2 * id];
        for (int ty = box.y0; ty <= box.y1; ++ty)
            for (int tx = box.x0; tx <= box.x1; ++tx) {
                const uint64_t mask =
                    covered_blocks(ellipse, S(tx * TileSize<P>::width), S(ty * TileSize<P>::height));
                if (!mask) continue;
                const uint32_t tile = uint32_t(ty * across + tx);
                a.emitted_tiles[at] = tile;
                a.emitted_ids[at] = id;
                a.emitted_masks[at] = mask;
                a.emitted_slots[at] = slot++;
                ++tile_counts[tile];
                ++at;
            }
        a.slot_ranges[2 * id + 1] = slot - a.slot_ranges[2 * id];
    }
    return at;
}

template <class P>
int box_tiles(const BinArgs& a, int64_t gaussian) {
    using S = typename P::Scalar;
    return tile_box<P>(a.grid, static_cast<const S*>(a.splats) + int64_t(kSplatFields) * gaussian).count();
}

}  // namespace dgr::DGR_ISA

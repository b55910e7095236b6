// SPDX-License-Identifier: Apache-2.0
// Which blocks of which tiles a splat touches.
//
// For each tile of the splat's bounding box, for each of its rows of blocks (as many at once as there are lanes),
// the exact horizontal extent of the ellipse inside that band of pixel rows; from it the first and last block.
// The extents are widened a little: a block too many costs time, a block too few would be wrong.
#pragma once

#include <cstdint>

#include "../bin.h"
#include "../splat.h"
#include "constants.h"
#include "host_device.h"
#include "tile_size.h"

namespace dgr::DGR_ISA {

struct TileBox {
    int x0, x1, y0, y1;  // inclusive
    DGR_HD int count() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
};

constexpr double kSlack = 2e-3;       // px; far above rounding, far below a block
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

// Blocks of one tile that the ellipse touches; bit blocks_across * row + column.
template <class P>
DGR_HD uint64_t covered_blocks(const Ellipse<P>& e, typename P::Scalar tile_x, typename P::Scalar tile_y) {
    using S = typename P::Scalar;
    using Size = TileSize<P>;
    constexpr S kRow[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    uint64_t mask = 0;
    for (int row = 0; row < Size::blocks_down; row += P::lanes) {
        // Pixel centres of the band, relative to the mean.
        P top = fma(P::load(kRow) + P(S(row)), P(S(Size::block_height)), P(tile_y + S(0.5) - e.y));
        P bottom = top + P(S(Size::block_height - 1));
        const auto touched = (e.reach_y >= top) & (bottom >= -e.reach_y);
        top = max(top, -e.reach_y);
        bottom = min(bottom, e.reach_y);
        const P at_right = min(max(e.lean, top), bottom), at_left = min(max(-e.lean, top), bottom);
        const P origin(e.x - tile_x - S(0.5)), slack{S(kSlack)};
        const P slant = e.l2 * e.inverse_l1;
        const P right = fnma(slant, at_right, e.half_chord(at_right)) + origin + slack;
        const P left = -fma(slant, at_left, e.half_chord(at_left)) + origin - slack;
        // Columns of pixel centres, then blocks; beyond the tile the range is empty.
        const P block{S(1.0 / Size::block_width)}, columns{S(Size::blocks_across)};
        const P first = min(floor(max(ceil(left), P(0)) * block), columns);
        const P last = max(min(floor(right * block), columns - P(1)), P(-1));
        mask |= bit_ranges(touched, first, last) << (Size::blocks_across * row);
    }
    return mask;
}

}  // namespace dgr::DGR_ISA

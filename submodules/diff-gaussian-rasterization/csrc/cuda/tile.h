// SPDX-License-Identifier: Apache-2.0
// A tile of 16 x 16 pixels in CUDA: pixel p belongs to warp p / 32, which has a block of 8 x 4; the bit of that block
// in an entry's mask is p / 32, too.
#pragma once

#include "lane.h"  // first: names the namespace of what follows

#include "../bin.h"
#include "../math/pair.h"
#include "../math/tile_size.h"

namespace dgr::lane {

using Size = TileSize<Lane>;
constexpr int kTilePixels = Size::width * Size::height;
static_assert(Size::block_width * Size::block_height == kWarp, "a warp is a block");

struct Pixel {
    int x, y;      // relative to the tile's corner
    int64_t at;    // in a plane of the image
    bool inside;   // of the image

    DGR_HD Pixel(const Grid& grid, int x0, int y0, int index) {
        const int block = index / kWarp, lane = index % kWarp;
        x = block % Size::blocks_across * Size::block_width + lane % Size::block_width;
        y = block / Size::blocks_across * Size::block_height + lane / Size::block_width;
        inside = x0 + x < grid.width && y0 + y < grid.height;
        at = int64_t(y0 + y) * grid.width + x0 + x;
    }
    DGR_HD BlockPixels<Lane> centre(float transmittance) const {
        return {{float(x) + 0.5f}, {float(y) + 0.5f}, {transmittance}};
    }
    // Before anything is drawn: 1, and -1 (stopped) outside the image.
    DGR_HD float first_transmittance() const { return inside ? 1.0f : -1.0f; }
};

DGR_HD int grid_across(const Grid& grid) { return (grid.width + Size::width - 1) / Size::width; }

// The fields of a splat that blending reads: three quarters of its row.
struct SplatRow {
    float4 a, b, c;
    DGR_HD Splat<Lane> splat(int x0, int y0) const {
        const float row[12] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w};
        return Splat<Lane>(row, x0, y0);
    }
};

DGR_HD SplatRow read_row(const void* splats, uint32_t id) {
    const float4* row = static_cast<const float4*>(splats) + int64_t(kSplatFields / 4) * id;
    return {row[0], row[1], row[2]};
}

}  // namespace dgr::lane

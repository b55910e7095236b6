// SPDX-License-Identifier: Apache-2.0
// Splats -> (tile, blocks) pairs, in the order given. Which those are is in ../../math/coverage.h.
#pragma once

#include "../../math/coverage.h"

namespace dgr::DGR_ISA {

constexpr int kEmitAhead = 12;  // splats fetched into the cache before their turn

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
                static_cast<uint64_t*>(a.emitted_masks)[at] = mask;
                a.emitted_slots[at] = slot++;
                ++tile_counts[tile];
                ++at;
            }
        // Written only where it changes: neighbours in memory belong to other threads' parts of the depth order.
        const uint32_t covered = slot - a.slot_ranges[2 * id];
        if (covered != a.slot_ranges[2 * id + 1]) a.slot_ranges[2 * id + 1] = covered;
    }
    return at;
}

template <class P>
int box_tiles(const BinArgs& a, int64_t gaussian) {
    using S = typename P::Scalar;
    return tile_box<P>(a.grid, static_cast<const S*>(a.splats) + int64_t(kSplatFields) * gaussian).count();
}

}  // namespace dgr::DGR_ISA

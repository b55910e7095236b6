// SPDX-License-Identifier: Apache-2.0
// How big a tile is for a pack: 8 x 8 blocks, each 4 pixels wide and as high as fills the pack.
#pragma once

#include "../../math/constants.h"

namespace dgr::DGR_ISA {

template <class P>
struct TileSize {
    static constexpr int block_height = P::lanes / kBlockWidth;
    static constexpr int width = kBlocksAcross * kBlockWidth;
    static constexpr int height = kBlocksAcross * block_height;
};

}  // namespace dgr::DGR_ISA

// SPDX-License-Identifier: Apache-2.0
// How big a tile is. On the CPU it has 8 x 8 blocks, each 4 pixels wide and as high as fills a pack; a pack of one
// lane is a CUDA thread, and there a block is the 8 x 4 pixels of a warp.
#pragma once

#include "constants.h"

namespace dgr::DGR_ISA {

template <class P>
struct TileSize {
    static constexpr bool of_threads = P::lanes == 1;
    static constexpr int block_width = of_threads ? 8 : kBlockWidth;
    static constexpr int block_height = of_threads ? 4 : P::lanes / kBlockWidth;
    static constexpr int blocks_across = of_threads ? 2 : kBlocksAcross;
    static constexpr int blocks_down = of_threads ? 4 : kBlocksAcross;
    static constexpr int width = blocks_across * block_width;
    static constexpr int height = blocks_down * block_height;
};

}  // namespace dgr::DGR_ISA

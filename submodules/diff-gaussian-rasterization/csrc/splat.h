// SPDX-License-Identifier: Apache-2.0
// Rows that flow between the stages. Both are one 64-byte line in float32.
#pragma once

#include "math/constants.h"

namespace dgr {

// A projected Gaussian. With d = pixel - (x, y): p = l1 dx + l2 dy, s = l3 dy,
// log2(alpha) = log2_opacity - p^2 - s^2, and the pair counts where that is >= log2_cut.
enum Field {
    kX, kY, kL1, kL2, kL3,        // px, 1/px
    kLog2Opacity, kLog2Cut,
    kRed, kGreen, kBlue,
    kDepth,
    kReachX, kReachY, kLean,      // half extents of the visible ellipse, and dy at its right-most point; px
    kOpacity, kInverseDepth,
};

// What one (tile, Gaussian) pair adds to that Gaussian's gradient; v = dL/d ln(alpha), w = blend weight.
enum Slot {
    kV, kVp, kVs, kVpp, kVps, kVss,   // moments of v in whitened offsets
    kVRed, kVGreen, kVBlue,           // sum w g
    kAbsX, kAbsY,                     // sum |v p|, sum |v (p l2 + s l3)|
    kVDepth, kVInverseDepth,          // sum w g_depth
};

// What one pair adds to the statistics of its Gaussian.
enum Stat { kSummedWeight, kLargestWeight, kPixelCount, kStatFields };

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// Numbers that decide what is drawn; each once, with its reason.
#pragma once

namespace dgr {

constexpr double kAlphaMin = 1.0 / 255.0;          // below this a pair changes no 8-bit image
constexpr double kAlphaMax = 0.99;                 // keeps 1 - alpha away from 0
constexpr double kTransmittanceStop = 1e-4;        // a pixel stops before it gets darker than this
constexpr double kDilation = 0.3;                  // px^2, low-pass filter: every splat covers about a pixel
constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;
constexpr double kLog2Of255 = 7.994353436858858;   // -log2(kAlphaMin)
constexpr double kLog2AlphaMin = -kLog2Of255;
// Whitened offsets are stored times sqrt(log2(e) / 2), so that log2(alpha) = log2(o) - p^2 - s^2.
constexpr double kWhitening = 0.8493218002880191;
constexpr double kMaxDeterminant = 1e30;           // px^4; larger projections are not finite in float32
constexpr double kMaxRadius = 1e9;                 // px; an endless, thin projection; radii are int32

constexpr int kSplatFields = 16;                   // see Field in ../splat.h
constexpr int kSlotFields = 16;                    // see Slot in ../splat.h
constexpr int kBlocksAcross = 8;                   // a tile is 8 x 8 blocks: its coverage is one 64-bit word
constexpr int kBlockWidth = 4;                     // px; the block's height is lanes / 4

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// Walks all (pixel, entry) pairs of a tile with a lane for each entry, so that sums over pixels stay in registers.
//
// Plan: 4 warps hold 128 consecutive entries; the 256 pixels of the tile stream past them one after the other, in
// depth order of the entries. A pixel's transmittance and what lies behind it pass from lane to lane by a shuffle, and
// from warp to warp through shared memory, two groups of 32 steps later. That makes the ring 4 x 2 groups of 32 long:
// as many pixels as a tile has. When the first pixel leaves the last warp, the first warp has just finished with the
// last pixel and takes the next 128 entries: nobody waits, nothing is stored for each batch, nothing added by atomics.
#pragma once

#include "tile.h"

#include "../blend.h"

namespace dgr::lane {

constexpr int kRingWarps = 4;
constexpr int kRingEntries = kRingWarps * kWarp;
constexpr int kWarpLag = 2 * kWarp;  // steps between neighbouring warps; a barrier lies between hand-over and take-over
static_assert(kRingWarps * kWarpLag == kTilePixels, "the ring is as long as the tile");

// Transmittance and `behind` of the pixels on their way between warps; written to one half while the other is read.
struct Passing {
    SharedArray<float, 2 * kTilePixels>& transmittance;
    SharedArray<float, 2 * kTilePixels>& behind;
};

// Visitor: open(entry), visit(pixel, transmittance, behind), close(entry), in this order for each entry; `visit`
// changes the last two. Every thread of the block must call this.
template <class Visitor>
__device__ void walk_ring(Passing passing, uint32_t begin, uint32_t end, Visitor& visitor) {
    const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
    const int delay = kWarpLag * warp + lane;
    const int entries = int(end - begin), batches = (entries + kRingEntries - 1) / kRingEntries;
    const int last = (entries - 1) % kRingEntries;
    const int steps = batches * kTilePixels + kWarpLag * (last / kWarp) + last % kWarp;
    float transmittance = 0, behind = 0;
    uint32_t open = end;  // the entry that this lane sums for; `end`: none
    for (int step = 0; step < steps; ++step) {
        if (step % kTilePixels == 0) {
            __syncthreads();
            bool stopped = true;
            for (int p = thread; p < kTilePixels; p += kRingEntries)
                stopped = stopped && (passing.transmittance[p] < 0 || passing.transmittance[kTilePixels + p] < 0);
            if (__syncthreads_and(stopped)) break;
        } else if (step % kWarp == 0 && !DGR_PLANTED(missing_ring_barrier)) {
            __syncthreads();
        }
        const unsigned lanes = DGR_PLANTED(wrong_mask) ? kAllLanes >> 1 : kAllLanes;
        const float transmittance_above = __shfl_up_sync(lanes, transmittance, 1);
        const float behind_above = __shfl_up_sync(lanes, behind, 1);
        const int at = step - delay;
        if (at < 0) continue;
        const int pixel = at % kTilePixels, batch = at / kTilePixels, hop = kRingWarps * batch + warp;
        transmittance = transmittance_above, behind = behind_above;
        if (lane == 0) {
            const int from = hop % 2 * kTilePixels + pixel;
            transmittance = passing.transmittance[from], behind = passing.behind[from];
        }
        const uint32_t entry = begin + uint32_t(batch * kRingEntries + thread);
        if (entry < end) {
            if (pixel == 0) visitor.open(open = entry);
            visitor.visit(pixel, transmittance, behind);
            if (pixel == kTilePixels - 1) visitor.close(entry), open = end;
        }
        if (lane == kWarp - 1) {
            const int to = (hop + 1) % 2 * kTilePixels + pixel + (DGR_PLANTED(off_by_one) ? 1 : 0);
            passing.transmittance[to] = transmittance, passing.behind[to] = behind;
        }
    }
    if (open != end) visitor.close(open);  // every pixel has stopped: what remained would have added nothing
}

// The whole kernel: fills the ring, walks it.
template <class Visitor>
__device__ void run_ring(const BlendInputs& in, SharedArray<float, 2 * kTilePixels>& transmittance,
                         SharedArray<float, 2 * kTilePixels>& behind, int x0, int y0, Visitor& visitor) {
    const uint32_t begin = in.tile_offsets[blockIdx.x], end = in.tile_offsets[blockIdx.x + 1];
    if (begin == end) return;
    for (int p = threadIdx.x; p < kTilePixels; p += kRingEntries) {
        const Pixel pixel(in.grid, x0, y0, p);
        transmittance[p] = transmittance[kTilePixels + p] = pixel.first_transmittance();
        behind[p] = visitor.start(pixel, p);
    }
    walk_ring({transmittance, behind}, begin, end, visitor);  // begins with a barrier
}

// What every visitor knows of its entry.
struct OpenEntry {
    Splat<Lane> splat;
    uint32_t id, slot;
    unsigned mask;

    __device__ OpenEntry() : splat(SplatRow{}.splat(0, 0)), id(0), slot(0), mask(0) {}
    __device__ OpenEntry(const BlendInputs& in, uint32_t entry, int x0, int y0)
        : splat(read_row(in.splats, in.entry_ids[entry]).splat(x0, y0)), id(in.entry_ids[entry]),
          slot(in.entry_slots[entry]), mask(static_cast<const uint8_t*>(in.entry_masks)[entry]) {}

    // Whether a pixel may be touched; one that has stopped is not.
    __device__ bool meets(int pixel, float transmittance) const {
        return transmittance >= 0 && (mask >> (pixel / kWarp) & 1);
    }
};

// Centre of a pixel with what is left of its light.
DGR_HD BlockPixels<Lane> pixel_state(int pixel, float transmittance) {
    const Grid everywhere{Size::width, Size::height, Size::width, Size::height};
    return Pixel(everywhere, 0, 0, pixel).centre(transmittance);
}

}  // namespace dgr::lane

// SPDX-License-Identifier: Apache-2.0
// Entries of one tile -> its pixels, front to back. A block owns a tile, a thread a pixel.
//
// Plan: the block copies a batch of splats into shared memory, one per thread. Each warp asks 32 entries at once
// which of them touch its 8 x 4 pixels (one ballot over the masks) and visits only those. A block ends when all its
// pixels have stopped. kInverse adds inverse depth; kFull adds depth and channels.
#include "backend.h"
#include "tile.h"

namespace dgr {
namespace {

using namespace lane;

constexpr int kBatch = kTilePixels;

// Blocks that share a multiprocessor: Turing's holds 1024 threads, later ones 1536 or 2048.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kResident = 4;
#else
constexpr int kResident = 6;
#endif

struct Extras {
    float depth = 0, median = 0;

    __device__ void add(const BlendInputs& in, const BlendOutputs& out, const Pixel& pixel, uint32_t id, float weight,
                        bool drawn, float before, float after) {
        const float z = static_cast<const float*>(in.splats)[int64_t(kSplatFields) * id + kDepth];
        depth = fmaf(weight, z, depth);
        if (drawn && before >= 0.5f && after < 0.5f) median = z;
        const int64_t pixels = int64_t(in.grid.width) * in.grid.height;
        const float* features = static_cast<const float*>(in.features) + int64_t(in.channels) * id;
        for (int c = 0; c < in.channels && pixel.inside && weight > 0; ++c) {
            float& sum = static_cast<float*>(out.features)[c * pixels + pixel.at];
            sum = fmaf(weight, features[c], sum);
        }
    }
};

template <bool kInverse, bool kFull>
__global__ void __launch_bounds__(kTilePixels, kFull ? 4 : kResident) blend_kernel(BlendInputs in, BlendOutputs out) {
    DGR_SHARED(float4, rows, 3 * kBatch);
    DGR_SHARED(float, inverse_depths, kInverse ? kBatch : 1);
    DGR_SHARED(uint32_t, ids, kFull ? kBatch : 1);
    DGR_SHARED(uint8_t, masks, kBatch);
    const int tile = blockIdx.x, thread = threadIdx.x, warp = thread / kWarp;
    const int across = grid_across(in.grid), x0 = tile % across * Size::width, y0 = tile / across * Size::height;
    const Pixel pixel(in.grid, x0, y0, thread);
    const int64_t pixels = int64_t(in.grid.width) * in.grid.height;
    BlockPixels<Lane> state = pixel.centre(pixel.first_transmittance());
    Lane red(0), green(0), blue(0), inverse(0);
    Extras extra;
    if constexpr (kFull)
        for (int c = 0; c < in.channels && pixel.inside; ++c)
            static_cast<float*>(out.features)[c * pixels + pixel.at] = 0;

    if (DGR_PLANTED(early_return) && !pixel.inside) return;
    const uint32_t begin = in.tile_offsets[tile], end = in.tile_offsets[tile + 1];
    for (uint32_t first = begin; first < end; first += kBatch) {
        // Also the barrier after which the last batch may be overwritten.
        if (__syncthreads_and(state.t[0] < 0)) break;
        const uint32_t entry = first + thread;
        uint8_t mask = 0;
        if (entry < end) {
            mask = static_cast<const uint8_t*>(in.entry_masks)[entry];
            const uint32_t id = in.entry_ids[entry];
            const SplatRow row = read_row(in.splats, id);
            rows[3 * thread] = row.a, rows[3 * thread + 1] = row.b, rows[3 * thread + 2] = row.c;
            if constexpr (kInverse)
                inverse_depths[thread] =
                    static_cast<const float*>(in.splats)[int64_t(kSplatFields) * id + kInverseDepth];
            if constexpr (kFull) ids[thread] = id;
        }
        masks[thread] = mask;
        if (!DGR_PLANTED(missing_barrier)) __syncthreads();

        const int filled = int(end - first < kBatch ? end - first : kBatch);
        for (int group = 0; group < filled; group += kWarp) {
            if (__all_sync(kAllLanes, state.t[0] < 0)) break;
            const uint8_t own = masks[group + thread % kWarp];
            unsigned touching = __ballot_sync(kAllLanes, own >> warp & 1);
            for (; touching; touching &= touching - 1) {
                const int k = group + __ffs(int(touching)) - 1;
                const SplatRow row = {rows[3 * k], rows[3 * k + 1], rows[3 * k + 2]};
                const Splat<Lane> splat = row.splat(x0, y0);
                const Pair<Lane> pair(splat, state);
                Mask blended;
                const float before = state.t[0];
                const Lane weight = advance(state, pair.alpha, blended);
                red = fma(weight, splat.red, red);
                green = fma(weight, splat.green, green);
                blue = fma(weight, splat.blue, blue);
                if constexpr (kInverse) inverse = fma(weight, Lane(inverse_depths[k]), inverse);
                if constexpr (kFull)
                    extra.add(in, out, pixel, ids[k], weight.v, blended.m && pair.counts.m, before, state.t[0]);
            }
        }
    }
    if (!pixel.inside) return;
    const Lane t = abs(Lane(state.t[0]));
    const float* background = static_cast<const float*>(in.background);
    float* image = static_cast<float*>(out.image) + pixel.at;
    image[0] = fma(t, Lane(background[0]), red).v;
    image[pixels] = fma(t, Lane(background[1]), green).v;
    image[2 * pixels] = fma(t, Lane(background[2]), blue).v;
    if (out.alpha) static_cast<float*>(out.alpha)[pixel.at] = 1.0f - t.v;
    if constexpr (kInverse) static_cast<float*>(out.inverse_depth)[pixel.at] = inverse.v;
    if constexpr (kFull) {
        if (out.depth) static_cast<float*>(out.depth)[pixel.at] = extra.depth;
        if (out.median_depth) static_cast<float*>(out.median_depth)[pixel.at] = extra.median;
    }
}

}  // namespace

void collect_stats(const Launch&, const BlendInputs&, const BlendOutputs&);

void blend(const Launch& launch, const BlendInputs& in, const BlendOutputs& out) {
    const bool full = out.depth || out.median_depth || out.features, inverse = out.inverse_depth;
    const auto kernel = full ? (inverse ? blend_kernel<true, true> : blend_kernel<false, true>)
                             : (inverse ? blend_kernel<true, false> : blend_kernel<false, false>);
    start(kernel, in.grid.tiles(), kTilePixels, launch.stream, in, out);
    check(cudaGetLastError(), "blend");
    if (out.stats) collect_stats(launch, in, out);
}

}  // namespace dgr

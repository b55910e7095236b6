// SPDX-License-Identifier: Apache-2.0
// Gradients of a tile's pixels -> one slot per entry; and statistics of an entry's pixels. See ring.h for the plan.
//
// The forward is run again (PairSums in ../math/pair.h says what has to be known of the image), so nothing but the image
// is kept for this, and pixels decide exactly as they did forward.
#include "backend.h"
#include "ring.h"

namespace dgr {
namespace {

using namespace lane;

template <bool kAbsolute, bool kFull>
struct Adjoint {
    const BlendInputs& in;
    const BlendGradients& a;
    int x0, y0;
    SharedArray<float4, kTilePixels>& gradients;       // red, green, blue, alpha
    SharedArray<float, kTilePixels>& depth_gradients;  // kFull only
    SharedArray<float, kTilePixels>& inverse_gradients;
    OpenEntry entry;
    PairSums<Lane> sums;
    float depth = 0, inverse_depth = 0, depth_sum = 0, inverse_sum = 0;

    static __device__ float at(const void* plane, int64_t i) {
        return plane ? static_cast<const float*>(plane)[i] : 0.0f;
    }
    __device__ int64_t pixels() const { return int64_t(in.grid.width) * in.grid.height; }

    // Loads a pixel's gradients; returns their product with the forward's outputs.
    __device__ float start(const Pixel& pixel, int p) {
        float4 g = make_float4(0, 0, 0, 0);
        float g_depth = 0, g_inverse = 0, behind = 0;
        if (pixel.inside) {
            const int64_t n = pixels(), i = pixel.at;
            g = make_float4(at(a.v_image, i), at(a.v_image, n + i), at(a.v_image, 2 * n + i), at(a.v_alpha, i));
            if (a.v_image)
                behind = fmaf(g.z, at(a.image, 2 * n + i), fmaf(g.y, at(a.image, n + i), g.x * at(a.image, i)));
            behind = fmaf(g.w, at(a.alpha, i), behind);
            if constexpr (kFull) {
                g_depth = at(a.v_depth, i), g_inverse = at(a.v_inverse_depth, i);
                behind = fmaf(g_depth, at(a.depth, i), fmaf(g_inverse, at(a.inverse_depth, i), behind));
                for (int c = 0; a.v_features && c < in.channels; ++c)
                    behind = fmaf(at(a.v_features, c * n + i), at(a.features, c * n + i), behind);
            }
        }
        gradients[p] = g;
        if constexpr (kFull) depth_gradients[p] = g_depth, inverse_gradients[p] = g_inverse;
        return behind;
    }

    __device__ void open(uint32_t e) {
        entry = OpenEntry(in, e, x0, y0);
        sums = PairSums<Lane>();
        if constexpr (kFull) {
            const float* row = static_cast<const float*>(in.splats) + int64_t(kSplatFields) * entry.id;
            depth = row[kDepth], inverse_depth = row[kInverseDepth];
            depth_sum = inverse_sum = 0;
        }
    }

    __device__ void visit(int p, float& transmittance, float& behind) {
        if (!entry.meets(p, transmittance)) return;
        BlockPixels<Lane> state = pixel_state(p, transmittance);
        const Pair<Lane> pair(entry.splat, state);
        if (!pair.counts.m) return;
        Mask blended;
        const Lane weight = advance(state, pair.alpha, blended);
        transmittance = state.t[0];
        const float4 g = gradients[p];
        Lane shared = fma(entry.splat.red, Lane(g.x),
                          fma(entry.splat.green, Lane(g.y), fma(entry.splat.blue, Lane(g.z), Lane(g.w))));
        if constexpr (kFull) shared = shared + full_share(p, weight.v);
        Lane left(behind);
        sums.add<kAbsolute>(entry.splat, pair, weight, blended, shared, Lane(g.x), Lane(g.y), Lane(g.z), left);
        behind = left.v;
    }

    // What depth and channels add to the share; their own sums. A lane owns its entry's row of channels.
    __device__ Lane full_share(int p, float weight) {
        const float g_depth = depth_gradients[p], g_inverse = inverse_gradients[p];
        float share = fmaf(inverse_depth, g_inverse, depth * g_depth);
        depth_sum = fmaf(weight, g_depth, depth_sum);
        inverse_sum = fmaf(weight, g_inverse, inverse_sum);
        if (!a.v_features) return Lane(share);
        const int64_t at_pixel = Pixel(in.grid, x0, y0, p).at;
        const float* features = static_cast<const float*>(in.features);
        float* sum = static_cast<float*>(a.slot_features) + int64_t(in.channels) * entry.slot;
        for (int c = 0; c < in.channels; ++c) {
            const float g = at(a.v_features, c * pixels() + at_pixel);
            if (features) share = fmaf(features[int64_t(in.channels) * entry.id + c], g, share);
            sum[c] = fmaf(weight, g, sum[c]);
        }
        return Lane(share);
    }

    __device__ void close(uint32_t) {
        float4* slot = static_cast<float4*>(a.slots) + int64_t(kSlotFields / 4) * entry.slot;
        slot[0] = make_float4(sums.v.v, sums.vp.v, sums.vs.v, sums.vpp.v);
        slot[1] = make_float4(sums.vps.v, sums.vss.v, sums.red.v, sums.green.v);
        slot[2] = make_float4(sums.blue.v, sums.abs_x.v, sums.abs_y.v, depth_sum);
        slot[3] = make_float4(inverse_sum, 0, 0, 0);
        a.reached[entry.slot] = 1;
    }
};

template <bool kAbsolute, bool kFull>
__global__ void __launch_bounds__(kRingEntries) blend_adjoint_kernel(BlendInputs in, BlendGradients a) {
    DGR_SHARED(float, transmittance, 2 * kTilePixels);
    DGR_SHARED(float, behind, 2 * kTilePixels);
    DGR_SHARED(float4, gradients, kTilePixels);
    DGR_SHARED(float, depth_gradients, kTilePixels);  // not allocated where never used
    DGR_SHARED(float, inverse_gradients, kTilePixels);
    const int across = grid_across(in.grid), tile = blockIdx.x;
    const int x0 = tile % across * Size::width, y0 = tile / across * Size::height;
    Adjoint<kAbsolute, kFull> visitor{in, a, x0, y0, gradients, depth_gradients, inverse_gradients, {}, {}};
    run_ring(in, transmittance, behind, x0, y0, visitor);
}

struct Stats {
    const BlendInputs& in;
    const BlendOutputs& out;
    int x0, y0;
    SharedArray<uint8_t, kTilePixels>& counted;
    OpenEntry entry;
    float summed = 0, largest = 0;
    int count = 0;

    __device__ float start(const Pixel& pixel, int p) {
        counted[p] = uint8_t(out.count_mask && pixel.inside && out.count_mask[pixel.at]);
        return 0;
    }
    __device__ void open(uint32_t e) {
        entry = OpenEntry(in, e, x0, y0);
        summed = largest = 0, count = 0;
    }
    __device__ void visit(int p, float& transmittance, float&) {
        if (!entry.meets(p, transmittance)) return;
        BlockPixels<Lane> state = pixel_state(p, transmittance);
        const Pair<Lane> pair(entry.splat, state);
        if (!pair.counts.m) return;
        Mask blended;
        const float weight = advance(state, pair.alpha, blended).v;
        transmittance = state.t[0];
        summed += weight;
        largest = weight > largest ? weight : largest;
        count += blended.m && counted[p];
    }
    __device__ void close(uint32_t) {
        float* row = static_cast<float*>(out.stats) + int64_t(kStatFields) * entry.slot;
        row[kSummedWeight] = summed, row[kLargestWeight] = largest, row[kPixelCount] = float(count);
    }
};

__global__ void __launch_bounds__(kRingEntries) stats_kernel(BlendInputs in, BlendOutputs out) {
    DGR_SHARED(float, transmittance, 2 * kTilePixels);
    DGR_SHARED(float, behind, 2 * kTilePixels);
    DGR_SHARED(uint8_t, counted, kTilePixels);
    const int across = grid_across(in.grid), tile = blockIdx.x;
    const int x0 = tile % across * Size::width, y0 = tile / across * Size::height;
    Stats visitor{in, out, x0, y0, counted, {}};
    run_ring(in, transmittance, behind, x0, y0, visitor);
}

}  // namespace

void collect_stats(const Launch& launch, const BlendInputs& in, const BlendOutputs& out) {
    start(stats_kernel, in.grid.tiles(), kRingEntries, launch.stream, in, out);
    check(cudaGetLastError(), "blend statistics");
}

void blend_adjoint(const Launch& launch, const BlendInputs& in, const BlendGradients& a) {
    const bool full = a.v_depth || a.v_inverse_depth || a.v_features;
    const auto kernel = full ? (a.absolute ? blend_adjoint_kernel<true, true> : blend_adjoint_kernel<false, true>)
                             : (a.absolute ? blend_adjoint_kernel<true, false> : blend_adjoint_kernel<false, false>);
    start(kernel, in.grid.tiles(), kRingEntries, launch.stream, in, a);
    check(cudaGetLastError(), "blend_adjoint");
}

}  // namespace dgr

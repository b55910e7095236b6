// SPDX-License-Identifier: Apache-2.0
// Gradients of one tile's pixels -> one slot per entry, front to back.
//
// Plan: run the forward again and keep what lies behind each pixel's pairs (PairSums in ../../math/pair.h). No list is
// stored, no transmittance divided back, and the pixels decide exactly as they did forward.
// Per entry, six moments of that in whitened offsets and three colour sums stay in registers over all its
// blocks; one reduction writes them to the entry's own slot. Slots lie together by Gaussian: that scatters these
// writes, which the arithmetic hides, and lets the next stage read in order.
#pragma once

#include "tile.h"

namespace dgr::DGR_ISA {

template <class P>
struct GradientState : BlockPixels<P> {
    typename P::Scalar behind[P::lanes], g_red[P::lanes], g_green[P::lanes], g_blue[P::lanes], g_alpha[P::lanes];
};

// Gradients of depth and channels, and the per-entry sums of the channels.
template <class P>
struct FullGradients {
    using S = typename P::Scalar;
    const BlendInputs& in;
    const BlendGradients& a;
    Scratch<S> g_depth, g_inverse, g_channels, sums;

    FullGradients(const BlendInputs& in, const BlendGradients& a)
        : in(in), a(a), g_depth(kBlocks * P::lanes), g_inverse(kBlocks * P::lanes),
          g_channels(int64_t(in.channels) * kBlocks * P::lanes), sums(int64_t(in.channels) * P::lanes) {}

    S* channel(int c, int block) const { return g_channels.data + (int64_t(c) * kBlocks + block) * P::lanes; }

    // Loads a block's gradients; adds their product with the forward's outputs to `behind`.
    void read(const Tile<P>& tile, int block, S* behind) {
        auto add = [&](const void* gradient, const void* output, S* lanes) {
            const P g = tile.read(block, static_cast<const S*>(gradient));
            g.store(lanes);
            if (output) fma(g, tile.read(block, static_cast<const S*>(output)), P::load(behind)).store(behind);
        };
        if (a.v_depth) add(a.v_depth, a.depth, g_depth.data + block * P::lanes);
        if (a.v_inverse_depth) add(a.v_inverse_depth, a.inverse_depth, g_inverse.data + block * P::lanes);
        for (int c = 0; a.v_features && c < in.channels; ++c) {
            const int64_t plane = c * tile.pixels;
            add(static_cast<const S*>(a.v_features) + plane,
                a.features ? static_cast<const S*>(a.features) + plane : nullptr, channel(c, block));
        }
    }
    // What depth and channels add to d.
    P share(int block, const S* splat, const S* features) const {
        P d = P(splat[kDepth]) * P::load(g_depth.data + block * P::lanes);
        d = fma(P(splat[kInverseDepth]), P::load(g_inverse.data + block * P::lanes), d);
        for (int c = 0; features && c < in.channels; ++c) d = fma(P(features[c]), P::load(channel(c, block)), d);
        return d;
    }
    void collect(int block, P weight, P& depth, P& inverse) {
        for (int c = 0; c < in.channels; ++c) {
            S* sum = sums.data + c * P::lanes;
            fma(weight, P::load(channel(c, block)), P::load(sum)).store(sum);
        }
        depth = fma(weight, P::load(g_depth.data + block * P::lanes), depth);
        inverse = fma(weight, P::load(g_inverse.data + block * P::lanes), inverse);
    }
    void write(uint32_t entry) {
        S* row = slot_row<S>(a.slot_features, in.channels, in, entry);
        for (int c = 0; c < in.channels; ++c) {
            S* sum = sums.data + c * P::lanes;
            row[c] = reduce_add(P::load(sum));
            P(0).store(sum);
        }
    }
};

template <class P>
struct NoGradients {
    NoGradients(const BlendInputs&, const BlendGradients&) {}
};

template <class P>
DGR_HD void read_block(const BlendGradients& a, const Tile<P>& tile, int block, GradientState<P>& s) {
    using S = typename P::Scalar;
    const void* gradients[4] = {a.v_image, a.v_image, a.v_image, a.v_alpha};
    S* lanes[4] = {s.g_red, s.g_green, s.g_blue, s.g_alpha};
    P behind(0);
    for (int c = 0; c < 4; ++c) {
        const int64_t plane = c < 3 ? c * tile.pixels : 0;
        P g(0);
        if (gradients[c]) {
            g = tile.read(block, static_cast<const S*>(gradients[c]) + plane);
            behind = fma(g, tile.read(block, static_cast<const S*>(c < 3 ? a.image : a.alpha) + plane), behind);
        }
        g.store(lanes[c]);
    }
    behind.store(s.behind);
    tile.start(block, s);
}

template <class P, bool kAbsolute, bool kFull>
void blend_adjoint_tile(const BlendInputs& in, const BlendGradients& a, int index) {
    using S = typename P::Scalar;
    const Tile<P> tile(in.grid, index);
    alignas(64) GradientState<P> state[kBlocks];
    std::conditional_t<kFull, FullGradients<P>, NoGradients<P>> extra(in, a);
    const uint32_t begin = in.tile_offsets[index], end = in.tile_offsets[index + 1];
    uint64_t live = covered(tile, in, begin, end);
    if (a.v_image && __builtin_popcountll(live) > kBlocks / 4) {  // else most of it would be fetched for nothing
        tile.template prefetch<false>(a.v_image, 3);
        tile.template prefetch<false>(a.image, 3);
    }
    for (uint64_t blocks = live; blocks; blocks &= blocks - 1) {
        const int b = __builtin_ctzll(blocks);
        read_block(a, tile, b, state[b]);
        if constexpr (kFull) extra.read(tile, b, state[b].behind);
    }

    for (uint32_t e = begin; e < end && live; ++e) {
        if ((e - begin) % kRescan == kRescan - 1) live = still_live<P>(live, state);
        const uint32_t later = e + kAhead < end ? e + kAhead : e;
        prefetch_splat<S>(in, later);
        __builtin_prefetch(slot_row<S>(a.slots, kSlotFields, in, later), 1);
        uint64_t blocks = entry_mask(in, e) & live;
        if (!blocks) continue;
        const S* row = static_cast<const S*>(in.splats) + int64_t(kSplatFields) * in.entry_ids[e];
        const Splat<P> splat(row, tile.x0, tile.y0);
        PairSums<P> sums;
        P depth_sum(0), inverse_sum(0);
        do {
            const uint64_t b = uint64_t(__builtin_ctzll(blocks));
            blocks &= blocks - 1;
            GradientState<P>& s = state[b];
            const Pair<P> pair(splat, s);
            typename P::Mask blended;
            const P weight = advance(s, pair.alpha, blended);
            const P red = P::load(s.g_red), green = P::load(s.g_green), blue = P::load(s.g_blue);
            P d = fma(splat.red, red, fma(splat.green, green, fma(splat.blue, blue, P::load(s.g_alpha))));
            if constexpr (kFull)
                d = d + extra.share(int(b), row, in.features ? static_cast<const S*>(in.features) +
                                                              int64_t(in.channels) * in.entry_ids[e]
                                                        : nullptr);
            P behind = P::load(s.behind);
            sums.template add<kAbsolute>(splat, pair, weight, blended, d, red, green, blue, behind);
            behind.store(s.behind);
            if constexpr (kFull) extra.collect(int(b), weight, depth_sum, inverse_sum);
        } while (blocks);

        const P first[8] = {sums.v, sums.vp, sums.vs, sums.vpp, sums.vps, sums.vss, sums.red, sums.green};
        S* slot = slot_row<S>(a.slots, kSlotFields, in, e);
        reduce_add8(first, slot);
        const P second[8] = {sums.blue, sums.abs_x, sums.abs_y, depth_sum, inverse_sum, P(0), P(0), P(0)};
        reduce_add8(second, slot + 8);
        a.reached[in.entry_slots[e]] = 1;
        if constexpr (kFull) extra.write(e);
    }
}

template <class P>
void blend_adjoint(const BlendInputs& in, const BlendGradients& a, int tile) {
    if (a.v_depth || a.v_inverse_depth || a.v_features)
        a.absolute ? blend_adjoint_tile<P, true, true>(in, a, tile) : blend_adjoint_tile<P, false, true>(in, a, tile);
    else
        a.absolute ? blend_adjoint_tile<P, true, false>(in, a, tile)
                   : blend_adjoint_tile<P, false, false>(in, a, tile);
}

}  // namespace dgr::DGR_ISA

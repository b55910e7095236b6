// SPDX-License-Identifier: Apache-2.0
// Entries of one tile -> its pixels, front to back.
//
// Plan: keep {transmittance, red, green, blue} of the 64 blocks in L1, broadcast a splat once, walk the set bits
// of its block mask. kInverse adds inverse depth; kFull adds depth, channels and per-splat statistics; without it this is the loop that
// training runs. Nothing is kept for the adjoint but the image.
#pragma once

#include "tile.h"

namespace dgr::DGR_ISA {

template <class P>
struct BlockState : BlockPixels<P> {
    typename P::Scalar red[P::lanes], green[P::lanes], blue[P::lanes];
};

// The optional outputs of one tile.
template <class P>
struct FullOutputs {
    using S = typename P::Scalar;
    const BlendInputs& in;
    const BlendOutputs& out;
    Scratch<S> depth, median, channels, counted;

    FullOutputs(const BlendInputs& in, const BlendOutputs& out, const Tile<P>& tile)
        : in(in), out(out), depth(kBlocks * P::lanes), median(kBlocks * P::lanes),
          channels(int64_t(in.channels) * kBlocks * P::lanes), counted(kBlocks * P::lanes) {
        if (!out.count_mask) return;
        for (int b = 0; b < kBlocks; ++b)
            tile.each_pixel(b, [&](int lane, int64_t at) {
                counted.data[b * P::lanes + lane] = out.count_mask[at] ? S(1) : S(0);
            });
    }

    void add(int block, P weight, typename P::Mask drawn, P before, P after, const S* splat, const S* features,
             S* stats) {
        const int at = block * P::lanes;
        const P z(splat[kDepth]);
        fma(weight, z, P::load(depth.data + at)).store(depth.data + at);
        const P half(S(0.5));
        const P crossed = select((before >= half) & (half > after) & drawn, z, P::load(median.data + at));
        crossed.store(median.data + at);
        for (int c = 0; c < in.channels; ++c) {
            S* row = channels.data + int64_t(c) * kBlocks * P::lanes + at;
            fma(weight, P(features[c]), P::load(row)).store(row);
        }
        if (!stats) return;
        const S top = reduce_max(weight);
        stats[kSummedWeight] += reduce_add(weight);
        stats[kLargestWeight] = top > stats[kLargestWeight] ? top : stats[kLargestWeight];
        stats[kPixelCount] += reduce_add(keep(drawn, P::load(counted.data + at)));
    }

    void write(const Tile<P>& tile, int block) const {
        const int at = block * P::lanes;
        if (out.depth) tile.write(block, P::load(depth.data + at), static_cast<S*>(out.depth));
        if (out.median_depth) tile.write(block, P::load(median.data + at), static_cast<S*>(out.median_depth));
        for (int c = 0; c < in.channels; ++c)
            tile.write(block, P::load(channels.data + int64_t(c) * kBlocks * P::lanes + at),
                       static_cast<S*>(out.features) + c * tile.pixels);
    }
};

template <class P>
struct NoOutputs {
    NoOutputs(const BlendInputs&, const BlendOutputs&, const Tile<P>&) {}
};

template <class P>
DGR_HD void write_block(const BlendInputs& in, const BlendOutputs& out, const Tile<P>& tile, int block,
                        const BlockState<P>& state) {
    using S = typename P::Scalar;
    const S* background = static_cast<const S*>(in.background);
    const P t = abs(P::load(state.t));
    const S* colors[3] = {state.red, state.green, state.blue};
    for (int c = 0; c < 3; ++c)
        tile.write(block, fma(t, P(background[c]), P::load(colors[c])), static_cast<S*>(out.image) + c * tile.pixels);
    if (out.alpha) tile.write(block, P(1) - t, static_cast<S*>(out.alpha));
}

template <class P>
DGR_HD void write_background(const BlendInputs& in, const BlendOutputs& out, const Tile<P>& tile, int block) {
    using S = typename P::Scalar;
    const S* background = static_cast<const S*>(in.background);
    for (int c = 0; c < 3; ++c)
        tile.write(block, P(background[c]), static_cast<S*>(out.image) + c * tile.pixels);
    if (out.alpha) tile.write(block, P(0), static_cast<S*>(out.alpha));
}

template <class P, bool kInverse, bool kFull>
void blend_tile(const BlendInputs& in, const BlendOutputs& out, int index) {
    using S = typename P::Scalar;
    const Tile<P> tile(in.grid, index);
    alignas(64) BlockState<P> state[kBlocks];
    alignas(64) S inverse_depth[kInverse ? kBlocks : 1][P::lanes];
    const uint32_t begin = in.tile_offsets[index], end = in.tile_offsets[index + 1];
    const uint64_t drawn = covered(tile, in, begin, end);
    for (int b = 0; b < kBlocks; ++b) {
        if constexpr (kInverse) P(0).store(inverse_depth[b]);
        if (!(drawn >> b & 1)) continue;
        tile.start(b, state[b]);
        P(0).store(state[b].red), P(0).store(state[b].green), P(0).store(state[b].blue);
    }
    std::conditional_t<kFull, FullOutputs<P>, NoOutputs<P>> extra(in, out, tile);
    tile.template prefetch<true>(out.image, 3);
    if constexpr (kInverse) tile.template prefetch<true>(out.inverse_depth, 1);

    uint64_t live = drawn;
    for (uint32_t e = begin; e < end && live; ++e) {
        if ((e - begin) % kRescan == kRescan - 1) live = still_live<P>(live, state);
        prefetch_splat<S>(in, e + kAhead < end ? e + kAhead : e);
        uint64_t blocks = entry_mask(in, e) & live;
        if (!blocks) continue;
        const S* row = static_cast<const S*>(in.splats) + int64_t(kSplatFields) * in.entry_ids[e];
        const Splat<P> splat(row, tile.x0, tile.y0);
        const P splat_inverse_depth(row[kInverseDepth]);
        do {
            const uint64_t b = uint64_t(__builtin_ctzll(blocks));
            blocks &= blocks - 1;
            BlockState<P>& s = state[b];
            const Pair<P> pair(splat, s);
            typename P::Mask blended;
            const P before = P::load(s.t);
            const P weight = advance(s, pair.alpha, blended);
            fma(weight, splat.red, P::load(s.red)).store(s.red);
            fma(weight, splat.green, P::load(s.green)).store(s.green);
            fma(weight, splat.blue, P::load(s.blue)).store(s.blue);
            if constexpr (kInverse)
                fma(weight, splat_inverse_depth, P::load(inverse_depth[b])).store(inverse_depth[b]);
            if constexpr (kFull)
                extra.add(int(b), weight, blended & pair.counts, before, P::load(s.t), row,
                          static_cast<const S*>(in.features) + int64_t(in.channels) * in.entry_ids[e],
                          slot_row<S>(out.stats, kStatFields, in, e));
        } while (blocks);
    }
    for (int b = 0; b < kBlocks; ++b) {
        if (!tile.starts_inside(b)) continue;
        drawn >> b & 1 ? write_block(in, out, tile, b, state[b]) : write_background(in, out, tile, b);
        if constexpr (kInverse) tile.write(b, P::load(inverse_depth[b]), static_cast<S*>(out.inverse_depth));
        if constexpr (kFull) extra.write(tile, b);
    }
}

template <class P>
void blend(const BlendInputs& in, const BlendOutputs& out, int tile) {
    if (out.depth || out.median_depth || out.features || out.stats)
        out.inverse_depth ? blend_tile<P, true, true>(in, out, tile) : blend_tile<P, false, true>(in, out, tile);
    else
        out.inverse_depth ? blend_tile<P, true, false>(in, out, tile) : blend_tile<P, false, false>(in, out, tile);
}

}  // namespace dgr::DGR_ISA

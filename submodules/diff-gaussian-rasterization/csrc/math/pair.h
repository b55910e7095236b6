// SPDX-License-Identifier: Apache-2.0
// One block of pixels under one splat: opacity, weight, and the sums for the adjoint.
//
// Pixel rules: alpha = min(0.99, opacity G), pairs below 1/255 (or the compact box) are skipped, and a pixel stops
// before the pair that would take its transmittance below 1e-4. A pixel that has stopped carries its transmittance
// negated: every later product is then negative too and fails the same comparison.
#pragma once

#include "../splat.h"
#include "constants.h"
#include "host_device.h"

namespace dgr::DGR_ISA {

// Pixels of one block: centres relative to the tile, and transmittance.
template <class P>
struct BlockPixels {
    typename P::Scalar x[P::lanes], y[P::lanes], t[P::lanes];
};

// One splat's constants in all lanes; its position relative to the tile's corner (x0, y0).
template <class P>
struct Splat {
    P x, y, l1, l2, l3, log2_opacity, log2_cut, red, green, blue;

    DGR_HD Splat(const typename P::Scalar* row, int x0, int y0)
        : x(row[kX] - typename P::Scalar(x0)), y(row[kY] - typename P::Scalar(y0)),
          l1(row[kL1]), l2(row[kL2]), l3(row[kL3]),
          log2_opacity(row[kLog2Opacity]), log2_cut(row[kLog2Cut]),
          red(row[kRed]), green(row[kGreen]), blue(row[kBlue]) {}
};

// One block under one splat.
template <class P>
struct Pair {
    P p, s;          // whitened offsets
    P unclamped;     // opacity times the Gaussian; without meaning where !counts
    typename P::Mask counts;
    P alpha;         // 0 where !counts

    DGR_HD Pair(const Splat<P>& splat, const BlockPixels<P>& pixels) {
        using S = typename P::Scalar;
        const P dx = P::load(pixels.x) - splat.x, dy = P::load(pixels.y) - splat.y;
        p = fma(splat.l1, dx, splat.l2 * dy);
        s = splat.l3 * dy;
        const P q = fnma(s, s, fnma(p, p, splat.log2_opacity));
        counts = q >= splat.log2_cut;
        unclamped = exp2_bounded(q);
        alpha = keep(counts, min(unclamped, P(S(kAlphaMax))));
    }
};

// Blends alpha into a block's transmittance. Returns the weight, 0 where the pixel stops or has stopped.
template <class P>
DGR_HD P advance(BlockPixels<P>& pixels, P alpha, typename P::Mask& blended) {
    const P before = P::load(pixels.t);
    const P weight = alpha * before;
    const P after = before - weight;
    blended = after >= P(typename P::Scalar(kTransmittanceStop));
    select(blended, after, negative(before)).store(pixels.t);
    return keep(blended, weight);
}

// Sums over the pixels of one (tile, splat) pair; see Slot in ../splat.h.
template <class P>
struct PairSums {
    P v, vp, vs, vpp, vps, vss, red, green, blue, abs_x, abs_y;

    DGR_HD PairSums()
        : v(0), vp(0), vs(0), vpp(0), vps(0), vss(0), red(0), green(0), blue(0), abs_x(0), abs_y(0) {}

    // With g the pixel's gradient, `shared` = c.g the splat's share of it, and `behind` = g.(final image) - sum of
    // weight * shared so far, which is what lies behind: dL/d ln(alpha) = w shared - alpha behind / (1 - alpha).
    // Saturated alphas are constants: no gradient. Updates `behind`.
    template <bool kAbsolute>
    DGR_HD void add(const Splat<P>& splat, const Pair<P>& pair, const P& weight, typename P::Mask blended,
                    const P& shared, const P& g_red, const P& g_green, const P& g_blue, P& behind) {
        const P from_here = weight * shared;
        behind = behind - from_here;
        const P slope = keep(blended & (pair.unclamped < P(typename P::Scalar(kAlphaMax))),
                             fnma(pair.alpha, behind / (P(1) - pair.alpha), from_here));
        red = fma(weight, g_red, red);
        green = fma(weight, g_green, green);
        blue = fma(weight, g_blue, blue);
        const P slope_p = slope * pair.p, slope_s = slope * pair.s;
        v = v + slope;
        vp = vp + slope_p;
        vs = vs + slope_s;
        vpp = fma(slope_p, pair.p, vpp);
        vps = fma(slope_p, pair.s, vps);
        vss = fma(slope_s, pair.s, vss);
        if constexpr (kAbsolute) {
            abs_x = abs_x + abs(slope_p);
            abs_y = abs_y + abs(fma(slope_p, splat.l2, slope_s * splat.l3));
        }
    }
};

}  // namespace dgr::DGR_ISA

// SPDX-License-Identifier: Apache-2.0
// Structural similarity of two images at one pixel, with its derivatives, and the gradient of the image.
//
// The maths. With w the blur, I the image, G the target:
//   m = w*I, t = w*G, d = m - t, B = w*(I^2 + G^2) - m^2 - t^2 + C2, V = w*((I - G)^2) - d^2 = var(I - G)
//   luminance l = 1 - d^2 / A with A = m^2 + t^2 + C1;  structure s = 1 - V / B;  similarity = l s.
// As 2 cov(I, G) = var I + var G - var(I - G) this is SSIM, but near-equal images lose no digits. Derivatives:
//   to w*I:            2 l (d - m (1 - s)) / B - 2 s (d - m (1 - l)) / A
//   to w*(I^2 + G^2):  l (1 - s) / B
//   to w*((I - G)^2): -l / B
// The window is symmetric, so the adjoint of the blur is the blur.
#pragma once

#include <cmath>

#include "host_device.h"

namespace dgr::DGR_ISA {

constexpr int kRadius = 5;                // px: 11 taps
constexpr double kDeviation = 1.5;        // px
constexpr double kLuminanceFloor = 1e-4;  // C1 = 0.01^2
constexpr double kContrastFloor = 9e-4;   // C2 = 0.03^2

// Taps by distance from the centre; over the window they sum to 1.
template <class P>
struct Window {
    P tap[kRadius + 1];

    Window() {
        double value[kRadius + 1], sum = 0;
        for (int i = 0; i <= kRadius; ++i) {
            value[i] = std::exp(-i * i / (2 * kDeviation * kDeviation));
            sum += i ? 2 * value[i] : value[i];
        }
        for (int i = 0; i <= kRadius; ++i) tap[i] = P(typename P::Scalar(value[i] / sum));
    }
};

// One blurred value; at(i) is what lies i pixels beside it.
template <class P, class At>
DGR_HD P blurred(const Window<P>& window, At at) {
    P sum = window.tap[0] * at(0);
    DGR_UNROLL for (int i = 1; i <= kRadius; ++i) sum = fma(window.tap[i], at(-i) + at(i), sum);
    return sum;
}

template <class P>
struct Similarity {
    P value, to_mean, to_squares, to_difference;
};

template <class P>
DGR_HD Similarity<P> similarity(P mean, P target_mean, P squares, P difference) {
    using S = typename P::Scalar;
    const P zero(S(0)), one(S(1));
    const P d = mean - target_mean;
    const P power = fma(mean, mean, target_mean * target_mean);
    const P a = power + P(S(kLuminanceFloor));
    // Variances are not negative; far beyond the range of an image, rounding could make them so.
    const P b = max(squares - power, zero) + P(S(kContrastFloor));
    const P inverse_ab = one / (a * b);  // one division is the dearest thing here
    const P inverse_a = b * inverse_ab, inverse_b = a * inverse_ab;
    const P variance = max(fnma(d, d, difference), zero);
    const P dark = d * d * inverse_a, rough = variance * inverse_b;  // 1 - l, 1 - s
    const P l = one - dark, s = one - rough;
    const P l_over_b = l * inverse_b;
    const P half_to_mean = l_over_b * fnma(mean, rough, d) - s * inverse_a * fnma(mean, dark, d);
    return {l * s, half_to_mean + half_to_mean, l_over_b * rough, -l_over_b};
}

// Gradient of a pixel: what the blurred derivatives bring, and that of L1. `slope` = weight times v_l1.
template <class P>
DGR_HD P image_gradient(P image, P target, P to_mean, P to_squares, P to_difference, P slope) {
    const P zero(typename P::Scalar(0)), difference = image - target;
    const P half = fma(image, to_squares, difference * to_difference);
    const P l1 = keep(difference > zero, slope) - keep(difference < zero, slope);
    return to_mean + (half + half) + l1;
}

}  // namespace dgr::DGR_ISA

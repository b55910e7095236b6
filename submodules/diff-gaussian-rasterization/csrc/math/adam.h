// SPDX-License-Identifier: Apache-2.0
// One step of Adam (Kingma and Ba, arXiv 1412.6980, with the bias corrections as torch applies them):
//   m += (1 - beta1) (g - m),  s += (1 - beta2) (g^2 - s),
//   p -= rate / (1 - beta1^t) * m / (sqrt(s / (1 - beta2^t)) + epsilon).
#pragma once

#include <cmath>

#include "../adam.h"
#include "host_device.h"

namespace dgr::DGR_ISA {

template <class P>
struct AdamStep {
    using S = typename P::Scalar;
    P gain1, gain2, beta2, inverse_root, epsilon;

    AdamStep() = default;
    explicit AdamStep(const AdamArgs& a)
        : gain1(S(1 - a.beta1)), gain2(S(1 - a.beta2)), beta2(S(a.beta2)),
          inverse_root(S(1 / std::sqrt(1 - std::pow(a.beta2, double(a.step))))), epsilon(S(a.epsilon)) {}

    // `rate` is divided by the first bias correction already.
    DGR_HD void operator()(P g, P rate, P& p, P& m, P& s) const {
        m = fma(gain1, g - m, m);
        s = fma(gain2 * g, g, beta2 * s);
        p = fnma(rate, m / fma(sqrt(s), inverse_root, epsilon), p);
    }
};

}  // namespace dgr::DGR_ISA

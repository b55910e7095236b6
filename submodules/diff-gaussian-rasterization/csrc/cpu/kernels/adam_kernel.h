// SPDX-License-Identifier: Apache-2.0
// One step of Adam, a pack of elements at a time; the maths is in ../../math/adam.h.
// Plan: every element is on its own; the seven streams of memory are the cost.
#pragma once

#include <cmath>

#include "../../adam.h"
#include "../../math/adam.h"
#include "rows_in_flight.h"

namespace dgr::DGR_ISA {

// Rates of the elements of a pack, from those of their rows.
template <class P>
DGR_HD P row_rates(const AdamArgs& a, int64_t at, int64_t count, typename P::Scalar factor) {
    typename P::Scalar lane[P::lanes] = {};
    int64_t row = at / a.columns, column = at % a.columns;
    for (int i = 0; i < P::lanes && i < count; ++i) {
        lane[i] = factor * static_cast<const typename P::Scalar*>(a.row_rates)[row];
        if (++column == a.columns) column = 0, ++row;
    }
    return P::load(lane);
}

// Elements [begin, end) of rows * columns.
template <class P>
void adam_step(const AdamArgs& a, int64_t begin, int64_t end) {
    using S = typename P::Scalar;
    const AdamStep<P> step(a);
    const double correction = 1 / (1 - std::pow(a.beta1, double(a.step)));
    const P rate(S(a.rate * correction));
    S *parameter = static_cast<S*>(a.parameter), *mean = static_cast<S*>(a.mean);
    S* mean_square = static_cast<S*>(a.mean_square);
    const S* gradient = static_cast<const S*>(a.gradient);
    for (int64_t at = begin; at < end; at += P::lanes) {
        const int64_t count = end - at;
        P p = load_first<P>(parameter + at, count), m = load_first<P>(mean + at, count);
        P s = load_first<P>(mean_square + at, count);
        step(load_first<P>(gradient + at, count),
             a.row_rates ? row_rates<P>(a, at, count, S(correction)) : rate, p, m, s);
        store_first(p, parameter + at, count);
        store_first(m, mean + at, count);
        store_first(s, mean_square + at, count);
    }
}

}  // namespace dgr::DGR_ISA

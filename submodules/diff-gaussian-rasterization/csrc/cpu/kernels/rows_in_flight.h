// SPDX-License-Identifier: Apache-2.0
// Scratch rows for kernels that stream over an image.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "../../math/host_device.h"

namespace dgr::DGR_ISA {

// Rows of equal width, zeroed, each with zeros on both sides: wide enough for the 11-tap window, and for a last
// pack that is not full.
template <class P>
class PaddedRows {
  public:
    using S = typename P::Scalar;

    // An odd number of lines per row: the rows of a window must not share a few sets of the cache.
    PaddedRows(int64_t rows, int64_t width) : stride_(((width + 3 * kAlign - 1) / kAlign | 1) * kAlign) {
        const int64_t size = rows * stride_;
        data_ = static_cast<S*>(std::aligned_alloc(64, (size * sizeof(S) + 63) / 64 * 64));
        for (int64_t i = 0; i < size; ++i) data_[i] = S(0);
    }
    ~PaddedRows() { std::free(data_); }
    PaddedRows(const PaddedRows&) = delete;
    PaddedRows& operator=(const PaddedRows&) = delete;

    DGR_HD S* row(int64_t i) const { return data_ + i * stride_ + kAlign; }

  private:
    static constexpr int64_t kAlign = 16;  // a cache line of float; the window's radius is 5
    int64_t stride_;
    S* data_;
};

// The last rows of several maps; row y overwrites row y - 16.
template <class P>
class Ring {
  public:
    using S = typename P::Scalar;

    Ring(int maps, int64_t width) : rows_(maps * kRows, width) {}
    DGR_HD S* row(int map, int64_t y) const { return rows_.row(map * kRows + (y & (kRows - 1))); }

  private:
    static constexpr int64_t kRows = 16;
    PaddedRows<P> rows_;
};

// The lanes below `count`; the others are 0, or left alone.
template <class P>
DGR_HD P load_first(const typename P::Scalar* from, int64_t count) {
    if (count >= P::lanes) return P::load(from);
    typename P::Scalar lane[P::lanes] = {};
    for (int64_t i = 0; i < count; ++i) lane[i] = from[i];
    return P::load(lane);
}
template <class P>
DGR_HD void store_first(P value, typename P::Scalar* to, int64_t count) {
    if (count >= P::lanes) return value.store(to);
    typename P::Scalar lane[P::lanes];
    value.store(lane);
    for (int64_t i = 0; i < count; ++i) to[i] = lane[i];
}

template <class P>
DGR_HD double sum_of_lanes(P value) {
    typename P::Scalar lane[P::lanes];
    value.store(lane);
    double sum = 0;
    for (int i = 0; i < P::lanes; ++i) sum += lane[i];
    return sum;
}

}  // namespace dgr::DGR_ISA

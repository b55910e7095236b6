// SPDX-License-Identifier: Apache-2.0
// Rows of an array of structures <-> packs of lanes. Lane i is row i; `valid` rows exist, the last repeats.
#pragma once

#include "host_device.h"

namespace dgr::DGR_ISA {

template <class P>
DGR_HD void load_rows(const typename P::Scalar* rows, int stride, int columns, int valid, P* out) {
    if (columns >= 4 && valid == P::lanes) {
        // The last quad overlaps the one before: nothing beyond the row is read.
        for (int c = 0; c < columns; c += 4) {
            const int at = c + 4 <= columns ? c : columns - 4;
            P::load_quad(rows + at, stride, out + at);
        }
        return;
    }
    typename P::Scalar lane[P::lanes];
    for (int c = 0; c < columns; ++c) {
        for (int i = 0; i < P::lanes; ++i) lane[i] = rows[(i < valid ? i : valid - 1) * stride + c];
        out[c] = P::load(lane);
    }
}

template <class P>
DGR_HD void store_rows(typename P::Scalar* rows, int stride, int columns, int valid, const P* in) {
    if (columns >= 4 && valid == P::lanes) {
        for (int c = 0; c < columns; c += 4) {
            const int at = c + 4 <= columns ? c : columns - 4;
            P::store_quad(rows + at, stride, in + at);
        }
        return;
    }
    typename P::Scalar lane[P::lanes];
    for (int c = 0; c < columns; ++c) {
        in[c].store(lane);
        for (int i = 0; i < valid; ++i) rows[i * stride + c] = lane[i];
    }
}

}  // namespace dgr::DGR_ISA

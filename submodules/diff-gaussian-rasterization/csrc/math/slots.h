// SPDX-License-Identifier: Apache-2.0
// Per-Gaussian sums over slots, in the order of the slots.
#pragma once

#include <cstdint>

#include "../splat.h"
#include "host_device.h"

namespace dgr {

template <class S>
DGR_HD void sum_rows(const uint32_t* range, const uint8_t* reached, const S* values, int columns, S* sum) {
    for (int c = 0; c < columns; ++c) sum[c] = S(0);
    for (uint32_t slot = range[0]; slot < range[0] + range[1]; ++slot) {
        if (reached && !reached[slot]) continue;
        const S* row = values + int64_t(columns) * slot;
        for (int c = 0; c < columns; ++c) sum[c] += row[c];
    }
}

template <class S>
DGR_HD void reduce_stats_row(const uint32_t* range, const S* stats, S& summed, S& largest, int32_t& pixels) {
    summed = largest = S(0);
    pixels = 0;
    for (uint32_t slot = range[0]; slot < range[0] + range[1]; ++slot) {
        const S* row = stats + int64_t(kStatFields) * slot;
        summed += row[kSummedWeight];
        largest = row[kLargestWeight] > largest ? row[kLargestWeight] : largest;
        pixels += int32_t(row[kPixelCount]);
    }
}

}  // namespace dgr

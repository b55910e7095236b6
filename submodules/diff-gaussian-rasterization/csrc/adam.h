// SPDX-License-Identifier: Apache-2.0
// What a backend offers for the optimiser: one step of Adam, in place.
#pragma once

#include <cstdint>

namespace dgr {

struct AdamArgs {
    void* parameter = nullptr;            // [rows, columns]
    const void* gradient = nullptr;       // [rows, columns]
    void* mean = nullptr;                 // [rows, columns], first moment
    void* mean_square = nullptr;          // [rows, columns], second moment
    const void* row_rates = nullptr;      // [rows] learning rate of each row, or null
    int64_t rows = 0, columns = 0;
    double rate = 0;                      // learning rate where row_rates is null
    double beta1 = 0.9, beta2 = 0.999;
    double epsilon = 1e-15;               // added to the square root
    int64_t step = 1;                     // 1-based, for the bias correction
};

}  // namespace dgr

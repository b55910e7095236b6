// SPDX-License-Identifier: Apache-2.0
// What a backend offers for the photometric loss: weighted L1 and structural similarity of two images, with the
// gradient to the first, in one pass.
#pragma once

#include <cstdint>

namespace dgr {

struct LossArgs {
    const void* image = nullptr;   // [channels, height, width]
    const void* target = nullptr;  // [channels, height, width]
    const void* weight = nullptr;  // [height, width], of each pixel in both sums; null: 1
    int64_t channels = 0, height = 0, width = 0;
    double v_l1 = 0;               // gradient of the loss to sum(weight |image - target|)
    double v_similarity = 0;       // gradient of the loss to sum(weight * similarity)
};

struct LossSums {
    double l1 = 0;          // sum(weight |image - target|)
    double similarity = 0;  // sum(weight * similarity)
};

// Sums are per row, so that they are added up in one order whoever computed them.
struct LossOutputs {
    LossSums* rows = nullptr;    // [channels, height]
    void* similarity = nullptr;  // [channels, height, width] or null
    void* v_image = nullptr;     // [channels, height, width] or null
};

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// Exact nearest neighbours on a card. Raw pointers to its memory; knows neither Python nor torch.
#pragma once

#include <cstdint>

namespace simple_knn {

constexpr int kBox = 128;  // points that share a bounding box

struct SortedPoints {
    const double* points;  // [count, 3], sorted so that neighbours in the array are near each other
    const double* boxes;   // [count / kBox rounded up, 6]: lowest and highest corner of each kBox points
    const int64_t* order;  // [count]: place in the caller's order
    int64_t count;
};

// As `nearest` of nearest.h, with both outputs. Throws std::runtime_error with one line.
void nearest_on_card(void* stream, const SortedPoints&, int neighbours, int64_t* indices, double* squared_distances);

}  // namespace simple_knn

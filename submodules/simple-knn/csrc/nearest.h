// SPDX-License-Identifier: Apache-2.0
// Exact nearest neighbours of a point cloud in itself. Raw pointers only; knows neither Python nor torch.
#pragma once

#include <cstdint>

namespace simple_knn {

constexpr int kMostNeighbours = 64;

struct NearestArgs {
    const double* points;  // [count, 3], finite
    int64_t count;
    int neighbours;  // 1..min(kMostNeighbours, count - 1)
    int threads;     // 0: all cores
};

// Indices [count, neighbours] of each point's nearest other points, nearest first, and their squared distances.
// Either output may be null. Equally distant points come in a fixed order, the same for any number of threads.
void nearest(const NearestArgs& args, int64_t* indices, double* squared_distances);

}  // namespace simple_knn

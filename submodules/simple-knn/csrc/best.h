// SPDX-License-Identifier: Apache-2.0
// What the search does with one point, on a CPU thread and in a CUDA thread alike. float64 throughout.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define KNN_HD __host__ __device__
#else
#define KNN_HD
#endif

namespace simple_knn {

KNN_HD inline double squared_distance(const double* a, const double* b) {
    const double dx = a[0] - b[0], dy = a[1] - b[1], dz = a[2] - b[2];
    return dx * dx + dy * dy + dz * dz;
}

// Of a point to a box, 0 inside.
KNN_HD inline double squared_distance(const double* low, const double* high, const double* p) {
    double sum = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const double below = low[axis] - p[axis], above = p[axis] - high[axis];
        const double outside = below > 0 ? below : above > 0 ? above : 0;
        sum += outside * outside;
    }
    return sum;
}

// The nearest others so far, sorted; everything but the point itself counts, duplicates of it too.
template <int kRoom>
class Best {
  public:
    KNN_HD Best(int neighbours, int64_t self) : neighbours_(neighbours), self_(self) {
        for (int rank = 0; rank < neighbours; ++rank)
            distances_[rank] = double(INFINITY), indices_[rank] = -1;
    }

    KNN_HD double worst() const { return distances_[neighbours_ - 1]; }
    KNN_HD double distance(int rank) const { return distances_[rank]; }
    KNN_HD int64_t index(int rank) const { return indices_[rank]; }

    KNN_HD void offer(double squared, int64_t index) {
        if (squared >= worst() || index == self_) return;
        int rank = neighbours_ - 1;
        for (; rank > 0 && distances_[rank - 1] > squared; --rank) {
            distances_[rank] = distances_[rank - 1];
            indices_[rank] = indices_[rank - 1];
        }
        distances_[rank] = squared;
        indices_[rank] = index;
    }

  private:
    int neighbours_;
    int64_t self_;
    double distances_[kRoom];
    int64_t indices_[kRoom];
};

}  // namespace simple_knn

// SPDX-License-Identifier: Apache-2.0
// Moving rows when their number changes: all columns in one launch, a thread for each element.
#include <stdexcept>

#include "backend.h"

namespace dgr {
namespace {

constexpr int kThreads = 256;
constexpr int kMostColumns = 64;  // what a launch may carry as arguments: 4 KB

struct Columns {
    RowColumn column[kMostColumns];
    int count;
    const int64_t* keep;
    uint32_t kept, rows;  // rows: with the new ones
};

template <class T>
__device__ void move_element(const Columns& all, const RowColumn& c, uint32_t at) {
    const uint32_t row = at / c.width, part = at - row * c.width;
    T value = T(c.fill);
    if (row < all.kept)
        value = static_cast<const T*>(c.from)[all.keep[row] * c.width + part];
    else if (c.fresh)
        value = static_cast<const T*>(c.fresh)[at - all.kept * c.width];
    static_cast<T*>(c.to)[at] = value;
}

__global__ void __launch_bounds__(kThreads) gather_append_kernel(Columns all) {
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    for (int k = 0; k < all.count; ++k) {
        const int64_t size = int64_t(all.rows) * all.column[k].width;
        if (i < size)
            return all.column[k].bytes == 1 ? move_element<uint8_t>(all, all.column[k], uint32_t(i))
                                            : move_element<uint32_t>(all, all.column[k], uint32_t(i));
        i -= size;
    }
}

}  // namespace

void gather_append(const Launch& launch, const std::vector<RowColumn>& columns, const int64_t* keep, int64_t kept,
                   int64_t fresh) {
    if (columns.size() > kMostColumns) throw std::invalid_argument("gather_append takes at most 64 columns");
    Columns all{};
    all.keep = keep, all.kept = uint32_t(kept), all.rows = uint32_t(kept + fresh);
    int64_t size = 0;
    for (const RowColumn& c : columns) {
        if ((kept + fresh) * c.width >> 32) throw std::invalid_argument("gather_append: a column is larger than 2^32");
        all.column[all.count++] = c;
        size += (kept + fresh) * c.width;
    }
    start(gather_append_kernel, blocks_for(size, kThreads), kThreads, launch.stream, all);
    check(cudaGetLastError(), "gather_append");
}

}  // namespace dgr

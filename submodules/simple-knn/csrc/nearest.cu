// SPDX-License-Identifier: Apache-2.0
// Plan: the points come sorted along a space-filling curve, kBox at a time in a box. A thread takes a point, looks
// through its own box, then through every other that may hold a nearer one. Threads of a warp are near each other, so
// they mostly agree about the boxes.
#include "nearest_cuda.h"

#include <stdexcept>
#include <string>

#include "best.h"
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include <host_cuda.h>
#endif

namespace simple_knn {
namespace {

constexpr int kThreads = 128;
constexpr int kFew = 4;

template <int kRoom>
__global__ void __launch_bounds__(kThreads)
    nearest_kernel(SortedPoints s, int neighbours, int64_t* indices, double* squared_distances) {
    const int64_t place = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (place >= s.count) return;
    const double* p = s.points + 3 * place;
    Best<kRoom> best(neighbours, place);
    const int64_t own = place / kBox, boxes = (s.count + kBox - 1) / kBox;
    for (int64_t k = -1; k < boxes; ++k) {
        const int64_t box = k < 0 ? own : k;
        const double* corners = s.boxes + 6 * box;
        if (k == own || (k >= 0 && squared_distance(corners, corners + 3, p) >= best.worst())) continue;
        const int64_t end = box + 1 < boxes ? (box + 1) * kBox : s.count;
        for (int64_t other = box * kBox; other < end; ++other)
            best.offer(squared_distance(s.points + 3 * other, p), other);
    }
    for (int rank = 0; rank < neighbours; ++rank) {
        const int64_t at = s.order[place] * neighbours + rank;
        indices[at] = s.order[best.index(rank)];
        squared_distances[at] = best.distance(rank);
    }
}

template <int kRoom>
void start(cudaStream_t stream, const SortedPoints& s, int neighbours, int64_t* indices, double* squared_distances) {
    const int64_t blocks = (s.count + kThreads - 1) / kThreads;
#if defined(__CUDACC__)
    nearest_kernel<kRoom><<<unsigned(blocks), kThreads, 0, stream>>>(s, neighbours, indices, squared_distances);
#else
    dgr::start(nearest_kernel<kRoom>, blocks, kThreads, stream, s, neighbours, indices, squared_distances);
#endif
}

}  // namespace

void nearest_on_card(void* stream, const SortedPoints& s, int neighbours, int64_t* indices,
                     double* squared_distances) {
    if (neighbours <= kFew)
        start<kFew>(cudaStream_t(stream), s, neighbours, indices, squared_distances);
    else
        start<64>(cudaStream_t(stream), s, neighbours, indices, squared_distances);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA, nearest: ") + cudaGetErrorString(error));
}

}  // namespace simple_knn

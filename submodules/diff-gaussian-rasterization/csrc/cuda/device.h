// SPDX-License-Identifier: Apache-2.0
// What the kernels take from CUDA. For host execution the tests' host_cuda.h gives the same names.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

// Arrays in shared memory, and references to them.
#define DGR_SHARED(type, name, size) __shared__ type name[size]
// Places where a test plants a bug; in the product there are none.
#define DGR_PLANTED(bug) false

namespace dgr {

template <class T, int N>
using SharedArray = T[N];

template <class Kernel, class... Arguments>
void start(Kernel kernel, int64_t blocks, int threads, cudaStream_t stream, Arguments... arguments) {
    if (blocks > 0) kernel<<<unsigned(blocks), threads, 0, stream>>>(arguments...);
}

}  // namespace dgr
#elif defined(DGR_HOST_EXECUTION)
#include <host_cuda.h>
#else
#include <cuda_runtime_api.h>  // for the binding, which launches nothing
#endif

namespace dgr {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

// Throws std::runtime_error with one line for the user unless `error` is success.
void check(cudaError_t error, const char* what);

inline int64_t blocks_for(int64_t count, int threads) { return (count + threads - 1) / threads; }

}  // namespace dgr

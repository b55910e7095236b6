// SPDX-License-Identifier: Apache-2.0
// Marks functions that run on the host and, when nvcc or clang compiles them as CUDA, on the device.
#pragma once

#if defined(__CUDACC__)
#define DGR_HD __host__ __device__ __forceinline__
#define DGR_KERNEL __host__ __device__
#if defined(__CUDA_ARCH__)
#define DGR_UNROLL _Pragma("unroll")
#else
#define DGR_UNROLL
#endif
#else
// Always inline: the same header is compiled for several instruction sets, and a shared out-of-line copy
// could be linked from the wrong one.
#define DGR_HD inline __attribute__((always_inline))
// The body of a loop over Gaussians, and a loop whose rounds a GPU needs unrolled to keep arrays in registers.
#define DGR_KERNEL
#define DGR_UNROLL
#endif

// SPDX-License-Identifier: Apache-2.0
#include "sort.h"

#if defined(__CUDACC__)
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#endif

namespace dgr {

uint64_t sort_scratch(int64_t count, int bits) {
    size_t bytes = 0;
    const uint32_t* in = nullptr;
    uint32_t* out = nullptr;
    check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, in, out, in, out, int(count), 0, bits), "sort");
    return bytes;
}

void sort_pairs(const SortArgs& a, void* scratch, uint64_t scratch_bytes, cudaStream_t stream) {
    size_t bytes = scratch_bytes;
    check(cub::DeviceRadixSort::SortPairs(scratch, bytes, a.keys, a.sorted_keys, a.values, a.sorted_values,
                                          int(a.count), 0, a.bits, stream),
          "sort");
}

uint64_t scan_scratch(int64_t count) {
    size_t bytes = 0;
    const uint32_t* in = nullptr;
    uint32_t* out = nullptr;
    check(cub::DeviceScan::ExclusiveSum(nullptr, bytes, in, out, int(count)), "scan");
    return bytes;
}

void exclusive_sum(const uint32_t* in, uint32_t* out, int64_t count, void* scratch, uint64_t scratch_bytes,
                   cudaStream_t stream) {
    size_t bytes = scratch_bytes;
    check(cub::DeviceScan::ExclusiveSum(scratch, bytes, in, out, int(count), stream), "scan");
}

}  // namespace dgr

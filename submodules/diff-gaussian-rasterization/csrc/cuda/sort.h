// SPDX-License-Identifier: Apache-2.0
// The two algorithms taken from CUB, which alone take longer to compile than all kernels together.
#pragma once

#include "device.h"

namespace dgr {

// Stable, by the low `bits` bits of the keys.
struct SortArgs {
    const uint32_t* keys = nullptr;
    uint32_t* sorted_keys = nullptr;
    const uint32_t* values = nullptr;
    uint32_t* sorted_values = nullptr;
    int64_t count = 0;
    int bits = 32;
};

uint64_t sort_scratch(int64_t count, int bits);
void sort_pairs(const SortArgs&, void* scratch, uint64_t scratch_bytes, cudaStream_t);

// out[k] = sum of in[0 .. k - 1].
uint64_t scan_scratch(int64_t count);
void exclusive_sum(const uint32_t* in, uint32_t* out, int64_t count, void* scratch, uint64_t scratch_bytes,
                   cudaStream_t);

}  // namespace dgr

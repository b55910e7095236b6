// SPDX-License-Identifier: Apache-2.0
#define DGR_ISA avx512
#include "simd/avx512.h"
#include "kernels/table.h"

namespace dgr {

const Kernels& avx512_kernels() {
    static constexpr Kernels kTable = avx512::table<avx512::FloatPack>("avx512");
    return kTable;
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
#define DGR_ISA avx2
#include "simd/avx2.h"
#include "kernels/table.h"

namespace dgr {

const Kernels& avx2_kernels() {
    static constexpr Kernels kTable = avx2::table<avx2::FloatPack>("avx2");
    return kTable;
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
#define DGR_ISA portable
#include "simd/portable.h"
#include "kernels/table.h"

namespace dgr {

const Kernels& portable_kernels() {
    static constexpr Kernels kTable = portable::table<portable::FloatPack>("portable");
    return kTable;
}

const Kernels& portable_kernels_f64() {
    static constexpr Kernels kTable = portable::table<portable::DoublePack>("portable");
    return kTable;
}

}  // namespace dgr

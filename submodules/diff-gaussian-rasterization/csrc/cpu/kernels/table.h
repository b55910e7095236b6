// SPDX-License-Identifier: Apache-2.0
// Builds the table of one instruction set. Include after its pack; DGR_ISA names its namespace.
#pragma once

#include <type_traits>

#include "../../math/gaussian.h"
#include "../../math/gaussian_adjoint.h"
#include "../kernels.h"
#include "adam_kernel.h"
#include "bin_kernel.h"
#include "blend_adjoint_kernel.h"
#include "blend_kernel.h"
#include "loss_kernel.h"

namespace dgr::DGR_ISA {

template <class P>
constexpr Kernels table(const char* name) {
    return {name,
            P::lanes,
            Tile<P>::width,
            Tile<P>::height,
            project<P>,
            project_adjoint<P>,
            emit<P>,
            box_tiles<P>,
            blend<P>,
            blend_adjoint<P>,
            compare_images<P>,
            adam_step<P>};
}

}  // namespace dgr::DGR_ISA

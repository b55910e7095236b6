// SPDX-License-Identifier: Apache-2.0
#include "backend.h"
#include "thread_pool.h"

namespace dgr {

void blend(const Launch& launch, const BlendInputs& in, const BlendOutputs& out) {
    parallel_for(in.grid.tiles(), launch.threads, [&](int tile) { launch.kernels.blend(in, out, tile); });
}

void blend_adjoint(const Launch& launch, const BlendInputs& in, const BlendGradients& a) {
    parallel_for(in.grid.tiles(), launch.threads, [&](int tile) { launch.kernels.blend_adjoint(in, a, tile); });
}

}  // namespace dgr

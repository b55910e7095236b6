// SPDX-License-Identifier: Apache-2.0
// What a backend offers for the first stage: Gaussians -> projected rows (splat.h), and its adjoint.
#pragma once

#include <cstdint>

namespace dgr {

// Python gives float64; the GPU takes float32, which it has more units for.
template <class Real>
struct CameraOf {
    int width = 0, height = 0;
    Real fx = 1, fy = 1, cx = 0, cy = 0;
    Real camera_from_world[12] = {};            // 3x4, row-major
    Real position[3] = {};                      // camera centre in the world
    Real clamp[4] = {};                         // xmin, xmax, ymin, ymax of x/z and y/z
    Real near = Real(0.2);
};
using Camera = CameraOf<double>;

// One pointer per array; null where the caller did not give it. Scalars are float or double, by the op.
template <class Real>
struct GaussiansOf {
    int64_t count = 0;
    const void* means = nullptr;                // [N, 3]
    const void* quats = nullptr;                // [N, 4]
    const void* scales = nullptr;               // [N, 3]
    const void* covs = nullptr;                 // [N, 6]; instead of quats and scales
    const void* opacities = nullptr;            // [N]
    const void* sh_dc = nullptr;                // [N, 3]
    const void* sh_rest = nullptr;              // [N, rest, 3]
    const void* colors = nullptr;               // [N, 3]; instead of SH
    int rest = 0;                               // coefficients stored in sh_rest
    int dc_stride = 3, rest_stride = 0;         // scalars between rows of sh_dc and sh_rest, gradients too
    int degree = 0;                             // of them, those in use
    Real scale_modifier = 1, mult = 1;
    bool raw = false;                           // log scales, logits, unnormalised quaternions
};
using Gaussians = GaussiansOf<double>;

struct ProjectOutputs {
    void* splats = nullptr;                     // [N, 16]
    int32_t* radii = nullptr;                   // [N]; 0 = not visible
};

struct ProjectGradients {
    const void* slots = nullptr;                // [slots, 16], from the blend adjoint
    const uint8_t* reached = nullptr;           // [slots]; rows of `slots` that were written
    const uint32_t* slot_ranges = nullptr;      // [N, 2]: a Gaussian's first slot and their number
    void* means = nullptr;
    void* quats = nullptr;
    void* scales = nullptr;
    void* covs = nullptr;
    void* opacities = nullptr;
    void* sh_dc = nullptr;
    void* sh_rest = nullptr;
    void* colors = nullptr;
    void* means2d = nullptr;                    // [N, means2d_columns]: signed x and y, sums of absolute x and y
    int means2d_columns = 4;
};

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// The vectorised inner parts of the CPU backend, one table per instruction set and scalar.
#pragma once

#include "../adam.h"
#include "../bin.h"
#include "../blend.h"
#include "../loss.h"
#include "../project.h"

namespace dgr {

struct Kernels {
    const char* name;
    int lanes;
    int tile_width, tile_height;
    void (*project)(const Camera&, const Gaussians&, const ProjectOutputs&, int64_t begin, int64_t end);
    void (*project_adjoint)(const Camera&, const Gaussians&, const void* splats, const int32_t* radii,
                            const ProjectGradients&, int64_t begin, int64_t end);
    // Emits order[begin, end) from position `first` on; adds to tile_counts; returns the position after the last.
    uint32_t (*emit)(const BinArgs&, int64_t begin, int64_t end, uint32_t first, uint32_t* tile_counts);
    int (*box_tiles)(const BinArgs&, int64_t gaussian);
    void (*blend)(const BlendInputs&, const BlendOutputs&, int tile);
    void (*blend_adjoint)(const BlendInputs&, const BlendGradients&, int tile);
    // Rows [begin, end) of channels * height; elements [begin, end) of rows * columns.
    void (*compare_images)(const LossArgs&, const LossOutputs&, int64_t begin, int64_t end);
    void (*adam_step)(const AdamArgs&, int64_t begin, int64_t end);
};

const Kernels& portable_kernels();
const Kernels& portable_kernels_f64();
#if defined(DGR_X86)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

// The best table that this machine can run; `isa` = "" lets the machine (or DGR_ISA) decide.
// Throws std::invalid_argument when the named one cannot run here.
const Kernels& choose_kernels(const char* isa, bool f64);

}  // namespace dgr

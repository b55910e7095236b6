// SPDX-License-Identifier: Apache-2.0
// The CPU backend: the stages of ../project.h, ../bin.h, ../blend.h, and ../loss.h and ../adam.h, spread over threads.
//
// Results do not depend on the number of threads: tiles own their pixels and slots, Gaussians own their rows,
// and every sum over slots runs in one order.
#pragma once

#include "kernels.h"

namespace dgr {

struct Launch {
    const Kernels& kernels;
    int threads = 0;               // 0: the default
    bool f64 = false;
};

void project(const Launch&, const Camera&, const Gaussians&, const ProjectOutputs&);
void project_adjoint(const Launch&, const Camera&, const Gaussians&, const void* splats, const int32_t* radii,
                     const ProjectGradients&);

// Sorts the visible splats by depth (fills order) and bounds the number of entries.
BinSizes bin_sort(const Launch&, const BinArgs&);
// Fills everything else; returns the number of entries.
int64_t bin_fill(const Launch&, const BinArgs&, const BinSizes&);

void blend(const Launch&, const BlendInputs&, const BlendOutputs&);
void blend_adjoint(const Launch&, const BlendInputs&, const BlendGradients&);

// `similarity` and `v_image` [channels, height, width] may be null.
LossSums compare_images(const Launch&, const LossArgs&, void* similarity, void* v_image);
void adam_step(const Launch&, const AdamArgs&);

// Per-Gaussian sums over slots. `values` is [slots, columns]; `reached` may be null.
void sum_slots(const Launch&, int64_t count, const uint32_t* slot_ranges,
               const uint8_t* reached, const void* values, int columns, void* sums);
void reduce_stats(const Launch&, int64_t count, const uint32_t* slot_ranges,
                  const void* stats, void* summed, void* largest, int32_t* counts);

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: the stages of ../project.h, ../bin.h, ../blend.h, ../loss.h and ../adam.h on one stream.
//
// float32 only. Nothing is summed by atomics: each (tile, Gaussian) pair has a slot, each block of the loss a partial
// sum, and all are added in a fixed order, so results are the same bytes in every run on one card.
#pragma once

#include <utility>

#include "../adam.h"
#include "../bin.h"
#include "../blend.h"
#include "../loss.h"
#include "../project.h"
#include "device.h"

namespace dgr {

// Of CUDA, such as 13000: what this was built with, and the newest that the driver knows, 0 where there is no driver.
std::pair<int, int> versions();

struct Launch {
    cudaStream_t stream = nullptr;
};

void project(const Launch&, const Camera&, const Gaussians&, const ProjectOutputs&);
void project_adjoint(const Launch&, const Camera&, const Gaussians&, const void* splats, const int32_t* radii,
                     const ProjectGradients&);

// Bytes of BinArgs::sort_scratch (capacity 0) or of BinArgs::fill_scratch.
uint64_t bin_scratch(const Grid&, int64_t count, int64_t capacity);
// Sorts by depth and counts entries exactly; waits for their number, which sizes the arrays of bin_fill.
BinSizes bin_sort(const Launch&, const BinArgs&);
int64_t bin_fill(const Launch&, const BinArgs&, const BinSizes&);

void blend(const Launch&, const BlendInputs&, const BlendOutputs&);
void blend_adjoint(const Launch&, const BlendInputs&, const BlendGradients&);

void sum_slots(const Launch&, int64_t count, const uint32_t* slot_ranges, const uint8_t* reached, const void* values,
               int columns, void* sums);
void reduce_stats(const Launch&, int64_t count, const uint32_t* slot_ranges, const void* stats, void* summed,
                  void* largest, int32_t* counts);

// Bytes of scratch for compare_images.
uint64_t loss_scratch(const LossArgs&);
// `sums` are two doubles on the device: sum(weight |I - G|) and sum(weight * similarity).
void compare_images(const Launch&, const LossArgs&, void* similarity, void* v_image, double* sums, void* scratch);

constexpr int kMostAdamGroups = 8;
// One launch for all groups of parameters.
void adam_steps(const Launch&, const AdamArgs* groups, int count);

// to[k] = from[rows[k]], rows of `columns` floats.
void gather_rows(const Launch&, const float* from, const int64_t* rows, int64_t count, int64_t columns, float* to);

}  // namespace dgr

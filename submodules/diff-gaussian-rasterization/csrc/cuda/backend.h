// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: the stages of ../project.h, ../bin.h, ../blend.h, ../loss.h and ../adam.h on one stream.
//
// float32 only. Nothing is summed by atomics: each (tile, Gaussian) pair has a slot, each block of the loss a partial
// sum, and all are added in a fixed order, so results are the same bytes in every run on one card.
#pragma once

#include <utility>
#include <vector>

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
// Sorts by depth and counts entries exactly. Their number is the last of BinArgs::firsts: the host need not wait for it.
BinSizes bin_sort(const Launch&, const BinArgs&);
// Lists the entries as far as BinSizes::capacity goes; those beyond it are left out, and the picture is to be made anew.
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

// One column of what has a row per Gaussian.
struct RowColumn {
    const void* from = nullptr;   // [N, width]
    const void* fresh = nullptr;  // new rows, or null: they are `fill`
    void* to = nullptr;
    uint32_t width = 0;           // elements of a row
    uint32_t bytes = 4;           // of an element: 4 or 1
    uint32_t fill = 0;            // bits of an element
};
// The rows of index `keep` of each column, in that order, then the `fresh` new ones; one launch for all.
void gather_append(const Launch&, const std::vector<RowColumn>&, const int64_t* keep, int64_t kept, int64_t fresh);

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// Gaussians -> projected rows, and the adjoint: a thread owns a Gaussian and runs ../math on a pack of one lane.
//
// Rows of parameters are read where they lie, a thread its own; neighbours' rows share cache lines, so each byte comes
// from memory once. The adjoint adds up the Gaussian's slots in their order: no atomics, no order that could vary.
#include "lane.h"  // first: names the namespace of what follows

#include "../math/gaussian.h"
#include "../math/gaussian_adjoint.h"
#include "../math/slots.h"
#include "backend.h"

namespace dgr {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ int64_t own_row() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

__global__ void __launch_bounds__(kThreads)
    project_kernel(lane::Camera camera, lane::Gaussians g, ProjectOutputs out) {
    const int64_t i = own_row();
    if (i < g.count) lane::project<lane::Lane>(camera, g, out, i, i + 1);
}

__global__ void __launch_bounds__(kThreads)
    project_adjoint_kernel(lane::Camera camera, lane::Gaussians g, const void* splats, const int32_t* radii,
                           ProjectGradients out) {
    const int64_t i = own_row();
    if (i < g.count) lane::project_adjoint<lane::Lane>(camera, g, splats, radii, out, i, i + 1);
}

__global__ void sum_slots_kernel(int64_t count, const uint32_t* slot_ranges, const uint8_t* reached,
                                 const float* values, int columns, float* sums) {
    const int64_t i = own_row();
    if (i < count) sum_rows(slot_ranges + 2 * i, reached, values, columns, sums + columns * i);
}

__global__ void reduce_stats_kernel(int64_t count, const uint32_t* slot_ranges, const float* stats, float* summed,
                                    float* largest, int32_t* counts) {
    const int64_t i = own_row();
    if (i < count) reduce_stats_row(slot_ranges + 2 * i, stats, summed[i], largest[i], counts[i]);
}

// Rounded once, here: most cards have few units for double.
lane::Camera rounded(const Camera& c) {
    lane::Camera r;
    r.width = c.width, r.height = c.height;
    r.fx = float(c.fx), r.fy = float(c.fy), r.cx = float(c.cx), r.cy = float(c.cy), r.near = float(c.near);
    for (int i = 0; i < 12; ++i) r.camera_from_world[i] = float(c.camera_from_world[i]);
    for (int i = 0; i < 3; ++i) r.position[i] = float(c.position[i]);
    for (int i = 0; i < 4; ++i) r.clamp[i] = float(c.clamp[i]);
    return r;
}

lane::Gaussians rounded(const Gaussians& g) {
    lane::Gaussians r;
    r.count = g.count;
    r.means = g.means, r.quats = g.quats, r.scales = g.scales, r.covs = g.covs, r.opacities = g.opacities;
    r.sh_dc = g.sh_dc, r.sh_rest = g.sh_rest, r.colors = g.colors;
    r.rest = g.rest, r.dc_stride = g.dc_stride, r.rest_stride = g.rest_stride, r.degree = g.degree;
    r.scale_modifier = float(g.scale_modifier), r.mult = float(g.mult), r.raw = g.raw;
    return r;
}

}  // namespace

void project(const Launch& launch, const Camera& camera, const Gaussians& g, const ProjectOutputs& out) {
    start(project_kernel, blocks_for(g.count, kThreads), kThreads, launch.stream, rounded(camera), rounded(g), out);
    check(cudaGetLastError(), "project");
}

void project_adjoint(const Launch& launch, const Camera& camera, const Gaussians& g, const void* splats,
                     const int32_t* radii, const ProjectGradients& out) {
    start(project_adjoint_kernel, blocks_for(g.count, kThreads), kThreads, launch.stream, rounded(camera), rounded(g),
          splats, radii, out);
    check(cudaGetLastError(), "project_adjoint");
}

void sum_slots(const Launch& launch, int64_t count, const uint32_t* slot_ranges, const uint8_t* reached,
               const void* values, int columns, void* sums) {
    start(sum_slots_kernel, blocks_for(count, kThreads), kThreads, launch.stream, count, slot_ranges, reached,
          static_cast<const float*>(values), columns, static_cast<float*>(sums));
    check(cudaGetLastError(), "sum_slots");
}

void reduce_stats(const Launch& launch, int64_t count, const uint32_t* slot_ranges, const void* stats, void* summed,
                  void* largest, int32_t* counts) {
    start(reduce_stats_kernel, blocks_for(count, kThreads), kThreads, launch.stream, count, slot_ranges,
          static_cast<const float*>(stats), static_cast<float*>(summed), static_cast<float*>(largest), counts);
    check(cudaGetLastError(), "reduce_stats");
}

}  // namespace dgr

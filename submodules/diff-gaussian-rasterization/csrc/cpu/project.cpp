// SPDX-License-Identifier: Apache-2.0
#include "backend.h"

#include "../math/slots.h"
#include "thread_pool.h"

namespace dgr {
namespace {

// Several parts per thread: visible Gaussians cost more, and they are not spread evenly.
constexpr int kPartsPerThread = 8;

template <class Body>
void over_gaussians(const Launch& launch, int64_t count, const Body& body) {
    if (count == 0) return;
    const int threads = resolve_threads(launch.threads);
    const int parts = threads == 1 ? 1 : threads * kPartsPerThread;
    parallel_for(parts, threads, [&](int i) {
        const Range r = part_of(count, parts, i, launch.kernels.lanes);
        if (r.begin < r.end) body(r.begin, r.end);
    });
}

}  // namespace

void project(const Launch& launch, const Camera& camera, const Gaussians& g, const ProjectOutputs& out) {
    over_gaussians(launch, g.count,
                   [&](int64_t begin, int64_t end) { launch.kernels.project(camera, g, out, begin, end); });
}

void project_adjoint(const Launch& launch, const Camera& camera, const Gaussians& g, const void* splats,
                     const int32_t* radii, const ProjectGradients& out) {
    over_gaussians(launch, g.count, [&](int64_t begin, int64_t end) {
        launch.kernels.project_adjoint(camera, g, splats, radii, out, begin, end);
    });
}

template <class S>
void sum_slots_of(const Launch& launch, int64_t count, const uint32_t* slot_ranges,
                  const uint8_t* reached, const void* values, int columns, void* sums) {
    over_gaussians(launch, count, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            sum_rows(slot_ranges + 2 * i, reached, static_cast<const S*>(values), columns,
                     static_cast<S*>(sums) + columns * i);
    });
}

void sum_slots(const Launch& launch, int64_t count, const uint32_t* slot_ranges,
               const uint8_t* reached, const void* values, int columns, void* sums) {
    const auto run = launch.f64 ? sum_slots_of<double> : sum_slots_of<float>;
    run(launch, count, slot_ranges, reached, values, columns, sums);
}

template <class S>
void reduce_stats_of(const Launch& launch, int64_t count, const uint32_t* slot_ranges,
                     const void* stats, void* summed, void* largest, int32_t* counts) {
    over_gaussians(launch, count, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            reduce_stats_row(slot_ranges + 2 * i, static_cast<const S*>(stats),
                             static_cast<S*>(summed)[i], static_cast<S*>(largest)[i], counts[i]);
    });
}

void reduce_stats(const Launch& launch, int64_t count, const uint32_t* slot_ranges,
                  const void* stats, void* summed, void* largest, int32_t* counts) {
    const auto run = launch.f64 ? reduce_stats_of<double> : reduce_stats_of<float>;
    run(launch, count, slot_ranges, stats, summed, largest, counts);
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// One step of Adam for all groups of parameters in one launch.
#include <stdexcept>

#include "lane.h"  // first: names the namespace of what follows

#include "../math/adam.h"
#include "backend.h"

namespace dgr {
namespace {

using namespace lane;

constexpr int kThreads = 256;

struct Group {
    float *parameter, *mean, *mean_square;
    const float *gradient, *row_rates;
    int64_t columns, size;
    float rate, correction;  // `rate` has its bias correction already
    AdamStep<Lane> step;
};

struct Groups {
    Group group[kMostAdamGroups];
    int count;
};

__device__ void step_element(const Group& g, int64_t i) {
    const float rate = g.row_rates ? g.correction * g.row_rates[i / g.columns] : g.rate;
    Lane p(g.parameter[i]), m(g.mean[i]), s(g.mean_square[i]);
    g.step(Lane(g.gradient[i]), Lane(rate), p, m, s);
    g.parameter[i] = p.v, g.mean[i] = m.v, g.mean_square[i] = s.v;
}

__global__ void __launch_bounds__(kThreads) adam_kernel(Groups groups) {
    int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    for (int k = 0; k < groups.count; ++k) {
        if (i < groups.group[k].size) return step_element(groups.group[k], i);
        i -= groups.group[k].size;
    }
}

Group group_of(const AdamArgs& a) {
    Group g;
    g.parameter = static_cast<float*>(a.parameter), g.gradient = static_cast<const float*>(a.gradient);
    g.mean = static_cast<float*>(a.mean), g.mean_square = static_cast<float*>(a.mean_square);
    g.row_rates = static_cast<const float*>(a.row_rates);
    g.columns = a.columns, g.size = a.rows * a.columns;
    const double correction = 1 / (1 - std::pow(a.beta1, double(a.step)));
    g.correction = float(correction), g.rate = float(a.rate * correction);
    g.step = AdamStep<Lane>(a);
    return g;
}

}  // namespace

void adam_steps(const Launch& launch, const AdamArgs* args, int count) {
    if (count > kMostAdamGroups) throw std::invalid_argument("adam_steps takes at most 8 groups");
    Groups groups{};
    int64_t size = 0;
    for (groups.count = 0; groups.count < count; ++groups.count) {
        groups.group[groups.count] = group_of(args[groups.count]);
        size += groups.group[groups.count].size;
    }
    start(adam_kernel, blocks_for(size, kThreads), kThreads, launch.stream, groups);
    check(cudaGetLastError(), "adam");
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend.h"
#include "thread_pool.h"

namespace dgr {

void adam_step(const Launch& launch, const AdamArgs& args) {
    constexpr int64_t elements_worth_a_part = 1 << 15;
    const int64_t size = args.rows * args.columns;
    const int parts = int(std::min<int64_t>(resolve_threads(launch.threads), 1 + size / elements_worth_a_part));
    parallel_for(parts, launch.threads, [&](int part) {
        const Range range = part_of(size, parts, part, launch.kernels.lanes);
        launch.kernels.adam_step(args, range.begin, range.end);
    });
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "backend.h"
#include "thread_pool.h"

namespace dgr {

void compare_images(const Launch& launch, const LossArgs& args, const LossOutputs& out) {
    constexpr int64_t rows_worth_a_part = 48;  // a part computes up to 20 rows beyond its own
    const int64_t rows = args.channels * args.height;
    const int parts = int(std::min<int64_t>(resolve_threads(launch.threads), 1 + rows / rows_worth_a_part));
    parallel_for(parts, launch.threads, [&](int part) {
        const Range range = part_of(rows, parts, part, 1);
        launch.kernels.compare_images(args, out, range.begin, range.end);
    });
}

}  // namespace dgr

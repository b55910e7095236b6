// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "backend.h"
#include "thread_pool.h"

namespace dgr {

LossSums compare_images(const Launch& launch, const LossArgs& args, void* similarity, void* v_image) {
    constexpr int64_t rows_worth_a_part = 48;  // a part computes up to 20 rows beyond its own
    const int64_t count = args.channels * args.height;
    const int parts = int(std::min<int64_t>(resolve_threads(launch.threads), 1 + count / rows_worth_a_part));
    std::vector<LossSums> rows(count);
    const LossOutputs out = {rows.data(), similarity, v_image};
    parallel_for(parts, launch.threads, [&](int part) {
        const Range range = part_of(count, parts, part, 1);
        launch.kernels.compare_images(args, out, range.begin, range.end);
    });
    LossSums sums;
    for (const LossSums& row : rows) sums = {sums.l1 + row.l1, sums.similarity + row.similarity};
    return sums;
}

}  // namespace dgr

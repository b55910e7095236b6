// SPDX-License-Identifier: Apache-2.0
// Threads that wait for work; no OpenMP, so that one wheel serves every torch.
#pragma once

#include <functional>

namespace dgr {

// Calls task(0) ... task(count - 1), each once, on up to `threads` threads (0: the default). The caller works
// too. Which thread runs which index is open: tasks must not care. The first exception is rethrown.
void parallel_for(int count, int threads, const std::function<void(int)>& task);

// Threads used where a caller says 0; itself 0 for all cores.
void set_default_threads(int threads);
int resolve_threads(int threads);

// Splits [0, size) into `parts` ranges whose borders are multiples of `multiple`.
struct Range {
    long long begin, end;
};
Range part_of(long long size, int parts, int index, int multiple);

}  // namespace dgr

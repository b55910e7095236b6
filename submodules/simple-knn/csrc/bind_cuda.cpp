// SPDX-License-Identifier: Apache-2.0
// The module of the card's search. Buffers are allocated and checked by the Python side.
#include <nanobind/nanobind.h>

#include "nearest_cuda.h"

namespace nb = nanobind;

NB_MODULE(_cuda, m) {
    m.attr("BOX") = simple_knn::kBox;
    m.def(
        "nearest",
        [](uintptr_t stream, uintptr_t points, uintptr_t boxes, uintptr_t order, int64_t count, int neighbours,
           uintptr_t indices, uintptr_t distances) {
            const simple_knn::SortedPoints sorted{reinterpret_cast<const double*>(points),
                                                  reinterpret_cast<const double*>(boxes),
                                                  reinterpret_cast<const int64_t*>(order), count};
            simple_knn::nearest_on_card(reinterpret_cast<void*>(stream), sorted, neighbours,
                                        reinterpret_cast<int64_t*>(indices), reinterpret_cast<double*>(distances));
        },
        nb::call_guard<nb::gil_scoped_release>());
}

// SPDX-License-Identifier: Apache-2.0
// The only file that knows Python. Buffers are allocated and checked by the Python side.
#include <nanobind/nanobind.h>

#include "nearest.h"

namespace nb = nanobind;

NB_MODULE(_core, m) {
    m.attr("MOST_NEIGHBOURS") = simple_knn::kMostNeighbours;
    m.def(
        "nearest",
        [](uintptr_t points, int64_t count, int neighbours, int threads, uintptr_t indices, uintptr_t distances) {
            simple_knn::nearest({reinterpret_cast<const double*>(points), count, neighbours, threads},
                                reinterpret_cast<int64_t*>(indices), reinterpret_cast<double*>(distances));
        },
        nb::arg("points"), nb::arg("count"), nb::arg("neighbours"), nb::arg("threads"), nb::arg("indices"),
        nb::arg("distances"), nb::call_guard<nb::gil_scoped_release>());
}

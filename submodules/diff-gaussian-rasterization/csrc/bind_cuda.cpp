// SPDX-License-Identifier: Apache-2.0
// The module of the CUDA backend: its way to run, its loss, optimiser and moving of rows. Pointers are integers.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "bindings.h"
#include "cuda/backend.h"
#include "math/constants.h"

namespace nb = nanobind;
using namespace dgr;

namespace {

LossArgs loss_args(int64_t channels, int64_t height, int64_t width) {
    LossArgs a;
    a.channels = channels, a.height = height, a.width = width;
    return a;
}

}  // namespace

void bind_launch(nb::module_& m) {
    nb::class_<Launch>(m, "Launch")
        .def("__init__", [](Launch* self, uintptr_t stream) { new (self) Launch{cudaStream_t(stream)}; })
        .def_prop_ro("tile_width", [](const Launch&) { return 16; })
        .def_prop_ro("tile_height", [](const Launch&) { return 16; });
    m.def("bin_scratch", &bin_scratch, nb::arg("grid"), nb::arg("count"), nb::arg("capacity"));
}

void bind_training(nb::module_& m) {
    m.def("loss_scratch", [](int64_t channels, int64_t height, int64_t width) {
        return loss_scratch(loss_args(channels, height, width));
    });
    m.def("compare_images", [](const Launch& launch, int64_t channels, int64_t height, int64_t width, uintptr_t image,
                               uintptr_t target, uintptr_t weight, double v_l1, double v_similarity,
                               uintptr_t similarity, uintptr_t v_image, uintptr_t sums, uintptr_t scratch) {
        LossArgs a = loss_args(channels, height, width);
        a.image = at<void>(image), a.target = at<void>(target), a.weight = at<void>(weight);
        a.v_l1 = v_l1, a.v_similarity = v_similarity;
        nb::gil_scoped_release release;
        compare_images(launch, a, at<void>(similarity), at<void>(v_image), at<double>(sums), at<void>(scratch));
    });
    nb::class_<AdamArgs>(m, "AdamArgs")
        .def("__init__",
             [](AdamArgs* self, int64_t rows, int64_t columns, uintptr_t parameter, uintptr_t gradient, uintptr_t mean,
                uintptr_t mean_square, uintptr_t row_rates, double rate, double beta1, double beta2, double epsilon,
                int64_t step) {
                 new (self) AdamArgs{at<void>(parameter), at<void>(gradient), at<void>(mean), at<void>(mean_square),
                                     at<void>(row_rates), rows, columns, rate, beta1, beta2, epsilon, step};
             });
    m.def("adam_steps", [](const Launch& launch, const std::vector<AdamArgs>& groups) {
        nb::gil_scoped_release release;
        adam_steps(launch, groups.data(), int(groups.size()));
    });
    nb::class_<RowColumn>(m, "RowColumn")
        .def("__init__", [](RowColumn* self, uintptr_t from, uintptr_t fresh, uintptr_t to, uint32_t width,
                            uint32_t bytes, uint32_t fill) {
            new (self) RowColumn{at<void>(from), at<void>(fresh), at<void>(to), width, bytes, fill};
        });
    m.def("gather_append", [](const Launch& launch, const std::vector<RowColumn>& columns, uintptr_t keep,
                              int64_t kept, int64_t fresh) {
        nb::gil_scoped_release release;
        gather_append(launch, columns, at<int64_t>(keep), kept, fresh);
    });
}

NB_MODULE(_cuda, m) {
    nanobind::set_leak_warnings(false);
    m.doc() = "CUDA stages of the rasteriser. Pointers are integers; the callers in Python own all memory.";
    bind_launch(m);
    bind_rasterizer(m);
    bind_training(m);
    m.attr("architectures") = DGR_CUDA_ARCHITECTURES;
    m.def("versions", &versions);
#if defined(DGR_HOST_EXECUTION)
    m.def("plant", [](int bug) { host::planted = host::Bug(bug); });
#endif
}

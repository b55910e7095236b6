// SPDX-License-Identifier: Apache-2.0
// The CPU backend's way to run, and what training needs besides images: loss and optimiser. Pointers are integers.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <utility>

#include "bindings.h"
#include "cpu/backend.h"
#include "cpu/thread_pool.h"

namespace nb = nanobind;
using namespace dgr;

namespace {

void bind_loss(nb::module_& m) {
    m.def(
        "compare_images",
        [](const Launch& launch, int64_t channels, int64_t height, int64_t width, uintptr_t image, uintptr_t target,
           uintptr_t weight, double v_l1, double v_similarity, uintptr_t similarity, uintptr_t v_image) {
            const LossArgs args = {at<void>(image), at<void>(target), at<void>(weight), channels, height,
                                   width,           v_l1,             v_similarity};
            LossSums sums;
            {
                nb::gil_scoped_release release;
                sums = compare_images(launch, args, at<void>(similarity), at<void>(v_image));
            }
            return std::pair(sums.l1, sums.similarity);
        },
        nb::arg("launch"), nb::arg("channels"), nb::arg("height"), nb::arg("width"), nb::arg("image"),
        nb::arg("target"), nb::arg("weight"), nb::arg("v_l1"), nb::arg("v_similarity"),
        nb::arg("similarity"), nb::arg("v_image"));
}

void bind_adam(nb::module_& m) {
    m.def(
        "adam_step",
        [](const Launch& launch, int64_t rows, int64_t columns, uintptr_t parameter, uintptr_t gradient,
           uintptr_t mean, uintptr_t mean_square, uintptr_t row_rates, double rate, double beta1, double beta2,
           double epsilon, int64_t step) {
            const AdamArgs args = {at<void>(parameter), at<void>(gradient), at<void>(mean), at<void>(mean_square),
                                   at<void>(row_rates), rows, columns, rate, beta1, beta2, epsilon, step};
            nb::gil_scoped_release release;
            adam_step(launch, args);
        },
        nb::arg("launch"), nb::arg("rows"), nb::arg("columns"), nb::arg("parameter"), nb::arg("gradient"),
        nb::arg("mean"), nb::arg("mean_square"), nb::arg("row_rates"), nb::arg("rate"), nb::arg("beta1"),
        nb::arg("beta2"), nb::arg("epsilon"), nb::arg("step"));
}

}  // namespace

void bind_launch(nb::module_& m) {
    nb::class_<Launch>(m, "Launch")
        .def("__init__", [](Launch* self, const std::string& isa, int threads,
                            bool f64) { new (self) Launch{choose_kernels(isa.c_str(), f64), threads, f64}; })
        .def_prop_ro("isa", [](const Launch& l) { return l.kernels.name; })
        .def_prop_ro("lanes", [](const Launch& l) { return l.kernels.lanes; })
        .def_prop_ro("tile_width", [](const Launch& l) { return l.kernels.tile_width; })
        .def_prop_ro("tile_height", [](const Launch& l) { return l.kernels.tile_height; });
    m.def("set_default_threads", &set_default_threads);
    m.def("resolve_threads", &resolve_threads);
}

void bind_training(nb::module_& m) {
    bind_loss(m);
    bind_adam(m);
}

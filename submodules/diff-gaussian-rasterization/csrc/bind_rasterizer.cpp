// SPDX-License-Identifier: Apache-2.0
// Argument structs with settable fields, and one function per stage. Pointer fields take integers.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include "bindings.h"
#if defined(DGR_CUDA)
#include "cuda/backend.h"
#else
#include "cpu/backend.h"
#endif

namespace nb = nanobind;
using namespace dgr;

namespace {

// A pointer member as an integer property.
template <class Class, class Pointer>
void pointer(nb::class_<Class>& c, const char* name, Pointer Class::*member) {
    c.def_prop_rw(
        name, [member](const Class& self) { return reinterpret_cast<uintptr_t>(self.*member); },
        [member](Class& self, uintptr_t value) { self.*member = reinterpret_cast<Pointer>(value); });
}

template <class Class, size_t N>
void numbers(nb::class_<Class>& c, const char* name, double (Class::*member)[N]) {
    c.def_prop_rw(
        name,
        [member](const Class& self) {
            std::array<double, N> out;
            std::copy_n(self.*member, N, out.begin());
            return out;
        },
        [member](Class& self, const std::array<double, N>& in) { std::copy_n(in.begin(), N, self.*member); });
}

void bind_project(nb::module_& m) {
    nb::class_<Camera> camera(m, "Camera");
    camera.def(nb::init<>())
        .def_rw("width", &Camera::width).def_rw("height", &Camera::height)
        .def_rw("fx", &Camera::fx).def_rw("fy", &Camera::fy).def_rw("cx", &Camera::cx).def_rw("cy", &Camera::cy)
        .def_rw("near", &Camera::near);
    numbers(camera, "camera_from_world", &Camera::camera_from_world);
    numbers(camera, "position", &Camera::position);
    numbers(camera, "clamp", &Camera::clamp);

    nb::class_<Gaussians> g(m, "Gaussians");
    g.def(nb::init<>())
        .def_rw("count", &Gaussians::count).def_rw("rest", &Gaussians::rest).def_rw("degree", &Gaussians::degree)
        .def_rw("dc_stride", &Gaussians::dc_stride).def_rw("rest_stride", &Gaussians::rest_stride)
        .def_rw("scale_modifier", &Gaussians::scale_modifier).def_rw("mult", &Gaussians::mult)
        .def_rw("raw", &Gaussians::raw);
    pointer(g, "means", &Gaussians::means);
    pointer(g, "quats", &Gaussians::quats);
    pointer(g, "scales", &Gaussians::scales);
    pointer(g, "covs", &Gaussians::covs);
    pointer(g, "opacities", &Gaussians::opacities);
    pointer(g, "sh_dc", &Gaussians::sh_dc);
    pointer(g, "sh_rest", &Gaussians::sh_rest);
    pointer(g, "colors", &Gaussians::colors);

    nb::class_<ProjectOutputs> out(m, "ProjectOutputs");
    out.def(nb::init<>());
    pointer(out, "splats", &ProjectOutputs::splats);
    pointer(out, "radii", &ProjectOutputs::radii);

    nb::class_<ProjectGradients> v(m, "ProjectGradients");
    v.def(nb::init<>());
    pointer(v, "slots", &ProjectGradients::slots);
    pointer(v, "reached", &ProjectGradients::reached);
    pointer(v, "slot_ranges", &ProjectGradients::slot_ranges);
    pointer(v, "means", &ProjectGradients::means);
    pointer(v, "quats", &ProjectGradients::quats);
    pointer(v, "scales", &ProjectGradients::scales);
    pointer(v, "covs", &ProjectGradients::covs);
    pointer(v, "opacities", &ProjectGradients::opacities);
    pointer(v, "sh_dc", &ProjectGradients::sh_dc);
    pointer(v, "sh_rest", &ProjectGradients::sh_rest);
    pointer(v, "colors", &ProjectGradients::colors);
    pointer(v, "means2d", &ProjectGradients::means2d);
    v.def_rw("means2d_columns", &ProjectGradients::means2d_columns);

    m.def("project", [](const Launch& launch, const Camera& camera, const Gaussians& g, const ProjectOutputs& out) {
        nb::gil_scoped_release release;
        project(launch, camera, g, out);
    });
    m.def("project_adjoint", [](const Launch& launch, const Camera& camera, const Gaussians& g, uintptr_t splats,
                                uintptr_t radii, const ProjectGradients& out) {
        nb::gil_scoped_release release;
        project_adjoint(launch, camera, g, at<void>(splats), at<int32_t>(radii), out);
    });
}

void bind_bin(nb::module_& m) {
    nb::class_<Grid>(m, "Grid")
        .def(nb::init<>())
        .def_rw("width", &Grid::width).def_rw("height", &Grid::height)
        .def_rw("tile_width", &Grid::tile_width).def_rw("tile_height", &Grid::tile_height)
        .def_prop_ro("tiles", &Grid::tiles);

    nb::class_<BinArgs> a(m, "BinArgs");
    a.def(nb::init<>()).def_rw("grid", &BinArgs::grid).def_rw("count", &BinArgs::count);
    pointer(a, "splats", &BinArgs::splats);
    pointer(a, "radii", &BinArgs::radii);
    pointer(a, "order", &BinArgs::order);
    pointer(a, "slot_ranges", &BinArgs::slot_ranges);
    pointer(a, "emitted_tiles", &BinArgs::emitted_tiles);
    pointer(a, "emitted_ids", &BinArgs::emitted_ids);
    pointer(a, "emitted_masks", &BinArgs::emitted_masks);
    pointer(a, "emitted_slots", &BinArgs::emitted_slots);
    pointer(a, "entry_slots", &BinArgs::entry_slots);
    pointer(a, "tile_offsets", &BinArgs::tile_offsets);
    pointer(a, "entry_ids", &BinArgs::entry_ids);
    pointer(a, "entry_masks", &BinArgs::entry_masks);
    pointer(a, "firsts", &BinArgs::firsts);
    pointer(a, "sort_scratch", &BinArgs::sort_scratch);
    pointer(a, "fill_scratch", &BinArgs::fill_scratch);

    nb::class_<BinSizes>(m, "BinSizes")
        .def_ro("visible", &BinSizes::visible)
        .def_rw("capacity", &BinSizes::capacity);

    m.def("bin_sort", [](const Launch& launch, const BinArgs& args) {
        nb::gil_scoped_release release;
        return bin_sort(launch, args);
    });
    m.def("bin_fill", [](const Launch& launch, const BinArgs& args, const BinSizes& sizes) {
        nb::gil_scoped_release release;
        return bin_fill(launch, args, sizes);
    });
}

void bind_blend(nb::module_& m) {
    nb::class_<BlendInputs> in(m, "BlendInputs");
    in.def(nb::init<>()).def_rw("grid", &BlendInputs::grid).def_rw("channels", &BlendInputs::channels);
    pointer(in, "splats", &BlendInputs::splats);
    pointer(in, "features", &BlendInputs::features);
    pointer(in, "background", &BlendInputs::background);
    pointer(in, "tile_offsets", &BlendInputs::tile_offsets);
    pointer(in, "entry_ids", &BlendInputs::entry_ids);
    pointer(in, "entry_slots", &BlendInputs::entry_slots);
    pointer(in, "entry_masks", &BlendInputs::entry_masks);

    nb::class_<BlendOutputs> out(m, "BlendOutputs");
    out.def(nb::init<>());
    pointer(out, "image", &BlendOutputs::image);
    pointer(out, "alpha", &BlendOutputs::alpha);
    pointer(out, "depth", &BlendOutputs::depth);
    pointer(out, "median_depth", &BlendOutputs::median_depth);
    pointer(out, "inverse_depth", &BlendOutputs::inverse_depth);
    pointer(out, "features", &BlendOutputs::features);
    pointer(out, "count_mask", &BlendOutputs::count_mask);
    pointer(out, "stats", &BlendOutputs::stats);

    nb::class_<BlendGradients> v(m, "BlendGradients");
    v.def(nb::init<>()).def_rw("absolute", &BlendGradients::absolute);
    pointer(v, "image", &BlendGradients::image);
    pointer(v, "alpha", &BlendGradients::alpha);
    pointer(v, "depth", &BlendGradients::depth);
    pointer(v, "inverse_depth", &BlendGradients::inverse_depth);
    pointer(v, "features", &BlendGradients::features);
    pointer(v, "v_image", &BlendGradients::v_image);
    pointer(v, "v_alpha", &BlendGradients::v_alpha);
    pointer(v, "v_depth", &BlendGradients::v_depth);
    pointer(v, "v_inverse_depth", &BlendGradients::v_inverse_depth);
    pointer(v, "v_features", &BlendGradients::v_features);
    pointer(v, "slots", &BlendGradients::slots);
    pointer(v, "reached", &BlendGradients::reached);
    pointer(v, "slot_features", &BlendGradients::slot_features);

    m.def("blend", [](const Launch& launch, const BlendInputs& in, const BlendOutputs& out) {
        nb::gil_scoped_release release;
        blend(launch, in, out);
    });
    m.def("blend_adjoint", [](const Launch& launch, const BlendInputs& in, const BlendGradients& v) {
        nb::gil_scoped_release release;
        blend_adjoint(launch, in, v);
    });
    m.def("sum_slots", [](const Launch& launch, int64_t count, uintptr_t slot_ranges,
                          uintptr_t reached, uintptr_t values, int columns, uintptr_t sums) {
        nb::gil_scoped_release release;
        sum_slots(launch, count, at<uint32_t>(slot_ranges), at<uint8_t>(reached), at<void>(values), columns,
                  at<void>(sums));
    });
    m.def("reduce_stats", [](const Launch& launch, int64_t count, uintptr_t slot_ranges,
                             uintptr_t stats, uintptr_t summed, uintptr_t largest, uintptr_t counts) {
        nb::gil_scoped_release release;
        reduce_stats(launch, count, at<uint32_t>(slot_ranges), at<void>(stats), at<void>(summed), at<void>(largest),
                     at<int32_t>(counts));
    });
}

}  // namespace

void bind_rasterizer(nb::module_& m) {
    bind_project(m);
    bind_bin(m);
    bind_blend(m);
}

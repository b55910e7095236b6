// SPDX-License-Identifier: Apache-2.0
// Sums of the blend adjoint -> gradients of the stored parameters, a pack of Gaussians at a time.
//
// Plan: add up each Gaussian's slots in the order they were emitted (so the sum does not depend on threads),
// transpose, undo whitening and projection with the maths of the forward, transpose back. The forward's
// intermediates are computed again: that is cheaper than storing them. Every row of every gradient is written;
// rows that are not visible get zeros.
#pragma once

#include "gaussian.h"

namespace dgr::DGR_ISA {

// One row of slot sums per lane.
template <class P>
DGR_HD void sum_slots(const ProjectGradients& out, int64_t begin, int valid, P* sums) {
    using S = typename P::Scalar;
    if constexpr (P::lanes == 1) {
        const uint32_t* range = out.slot_ranges + 2 * begin;
        for (int c = 0; c < kSlotFields; ++c) sums[c] = P(0);
        for (int64_t slot = range[0]; slot < int64_t(range[0]) + range[1]; ++slot) {
            if (!out.reached[slot]) continue;
            P row[kSlotFields];
            load_rows<P>(static_cast<const S*>(out.slots) + kSlotFields * slot, kSlotFields, kSlotFields, 1, row);
            for (int c = 0; c < kSlotFields; ++c) sums[c] = sums[c] + row[c];
        }
        return;
    }
    constexpr int kParts = kSlotFields / P::lanes > 0 ? kSlotFields / P::lanes : 1;
    S rows[P::lanes][kSlotFields];
    for (int k = 0; k < P::lanes; ++k) {
        P total[kParts];
        for (int part = 0; part < kParts; ++part) total[part] = P(0);
        const uint32_t* range = out.slot_ranges + 2 * (begin + (k < valid ? k : 0));
        for (int64_t slot = range[0]; k < valid && slot < int64_t(range[0]) + range[1]; ++slot) {
            if (!out.reached[slot]) continue;
            const S* row = static_cast<const S*>(out.slots) + kSlotFields * slot;
            for (int part = 0; part < kParts; ++part) total[part] = total[part] + P::load(row + part * P::lanes);
        }
        for (int part = 0; part < kParts; ++part) total[part].store(rows[k] + part * P::lanes);
    }
    load_rows<P>(rows[0], kSlotFields, kSlotFields, P::lanes, sums);
}

template <class P>
struct Masked {
    typename P::Mask visible;
    int64_t begin;
    int valid;

    DGR_HD void write(void* array, int columns, P* values) const { write(array, columns, columns, values); }
    DGR_HD void write(void* array, int stride, int columns, P* values) const {
        if (!array) return;
        for (int c = 0; c < columns; ++c) values[c] = keep(visible, values[c]);
        store_rows(static_cast<typename P::Scalar*>(array) + stride * begin, stride, columns, valid, values);
    }
};

// Gradients of the SH coefficients or colours; returns that of the mean through the view direction.
template <class P>
DGR_HD Vec3<P> color_adjoint(const Camera& camera, const Gaussians& g, const Vec3<P>& mean, const P* row,
                             const P* sums, const ProjectGradients& out, const Masked<P>& rows) {
    using S = typename P::Scalar;
    if (g.colors) {
        P v[3] = {sums[kVRed], sums[kVGreen], sums[kVBlue]};
        rows.write(out.colors, 3, v);
        return {P(0), P(0), P(0)};
    }
    Vec3<P> v_color;  // a channel clamped at 0 gets no gradient
    v_color.x = keep((row[kRed] > P(0)) & rows.visible, sums[kVRed]);
    v_color.y = keep((row[kGreen] > P(0)) & rows.visible, sums[kVGreen]);
    v_color.z = keep((row[kBlue] > P(0)) & rows.visible, sums[kVBlue]);
    P inverse_distance, b[kMaxBasis], v_b[kMaxBasis];
    const Vec3<P> direction = view_direction(camera, mean, inverse_distance);
    sh_basis(g.degree, direction, b);
    const int used = used_rest(g);
    const RestRow<P> f(g, rows.begin, rows.valid, used);
    DGR_UNROLL for (int k = 0; k < kMaxBasis - 1; ++k) {
        if (k >= used) break;
        v_b[k + 1] = f[3 * k] * v_color.x + f[3 * k + 1] * v_color.y + f[3 * k + 2] * v_color.z;
    }

    P v_dc[3] = {b[0] * v_color.x, b[0] * v_color.y, b[0] * v_color.z};
    rows.write(out.sh_dc, g.dc_stride, 3, v_dc);
    P v_rest[3 * (kMaxBasis - 1)];
    DGR_UNROLL for (int k = 0; k < kMaxBasis - 1; ++k) {
        if (k >= g.rest) break;
        const P basis = k < used ? b[k + 1] : P(0);
        P* v = v_rest + 3 * k;
        v[0] = basis * v_color.x, v[1] = basis * v_color.y, v[2] = basis * v_color.z;
        if constexpr (P::lanes == 1)
            if (out.sh_rest) rows.write(static_cast<S*>(out.sh_rest) + 3 * k, g.rest_stride, 3, v);
    }
    if constexpr (P::lanes > 1)
        if (g.rest) rows.write(out.sh_rest, g.rest_stride, 3 * g.rest, v_rest);
    const Vec3<P> v_direction = sh_basis_adjoint(used ? g.degree : 0, direction, v_b);
    return inverse_distance * (v_direction - dot(v_direction, direction) * direction);
}

// Gradients of scale and rotation; `m` are the images of the factor's columns, v_m their gradients.
template <class P>
DGR_HD void shape_adjoint(const Gaussians& g, const Shape<P>& shape, const PixelMap<P>& map, const Vec3<P>& v_m0,
                          const Vec3<P>& v_m1, const ProjectGradients& out, const Masked<P>& rows) {
    using S = typename P::Scalar;
    // M = B F: v_F = B^T v_M. Row i of v_F:
    auto v_factor = [&](const P& b0, const P& b1) { return b0 * v_m0 + b1 * v_m1; };
    const Vec3<P> v0 = v_factor(map.row0.x, map.row1.x);
    const Vec3<P> v1 = v_factor(map.row0.y, map.row1.y);
    const Vec3<P> v2 = v_factor(map.row0.z, map.row1.z);
    const Mat3<P>& r = shape.rotation;
    const Vec3<P> s = shape.scale;
    P v_scale[3] = {v0.x * r.r0.x + v1.x * r.r1.x + v2.x * r.r2.x, v0.y * r.r0.y + v1.y * r.r1.y + v2.y * r.r2.y,
                    v0.z * r.r0.z + v1.z * r.r1.z + v2.z * r.r2.z};
    const P modifier{S(g.scale_modifier)};
    v_scale[0] = v_scale[0] * (g.raw ? s.x : modifier);
    v_scale[1] = v_scale[1] * (g.raw ? s.y : modifier);
    v_scale[2] = v_scale[2] * (g.raw ? s.z : modifier);
    rows.write(out.scales, 3, v_scale);

    const Mat3<P> v_rotation{{v0.x * s.x, v0.y * s.y, v0.z * s.z},
                             {v1.x * s.x, v1.y * s.y, v1.z * s.z},
                             {v2.x * s.x, v2.y * s.y, v2.z * s.z}};
    Quat<P> v_q = rotation_adjoint(shape.q, v_rotation);
    if (g.raw) v_q = normalize_adjoint(shape.q, shape.inverse_norm, v_q);
    P v[4] = {v_q.w, v_q.x, v_q.y, v_q.z};
    rows.write(out.quats, 4, v);
}

template <class P>
DGR_HD void covariance_adjoint(const Gaussians& g, const PixelMap<P>& map, const Sym2<P>& v,
                               const ProjectGradients& out, const Masked<P>& rows) {
    const Vec3<P> a = v.xx * map.row0 + v.xy * map.row1, b = v.xy * map.row0 + v.yy * map.row1;
    const P m{typename P::Scalar(g.scale_modifier * g.scale_modifier)};
    // Off-diagonal entries are stored once and stand for two.
    auto entry = [&](const P& a_i, const P& b_i, const P& row0_j, const P& row1_j) {
        return m * (a_i * row0_j + b_i * row1_j);
    };
    P c[6] = {entry(a.x, b.x, map.row0.x, map.row1.x), P(2) * entry(a.x, b.x, map.row0.y, map.row1.y),
              P(2) * entry(a.x, b.x, map.row0.z, map.row1.z), entry(a.y, b.y, map.row0.y, map.row1.y),
              P(2) * entry(a.y, b.y, map.row0.z, map.row1.z), entry(a.z, b.z, map.row0.z, map.row1.z)};
    rows.write(out.covs, 6, c);
}

// Gradients of the shape; fills those of the pixel map's rows.
template <class P>
DGR_HD void shadow_adjoint(const Gaussians& g, const PixelMap<P>& map, const Sym2<P>& v, Vec3<P>& v_row0,
                           Vec3<P>& v_row1, const ProjectGradients& out, const Masked<P>& rows) {
    if (g.covs) {
        const Sym3<P> cov = load_covariance<P>(g, rows.begin, rows.valid);
        v_row0 = P(2) * (cov * (v.xx * map.row0 + v.xy * map.row1));
        v_row1 = P(2) * (cov * (v.xy * map.row0 + v.yy * map.row1));
        covariance_adjoint(g, map, v, out, rows);
        return;
    }
    const Shape<P> shape = load_shape<P>(g, rows.begin, rows.valid);
    const Vec3<P> m0 = times_factor(map.row0, shape), m1 = times_factor(map.row1, shape);
    const Vec3<P> v_m0 = P(2) * (v.xx * m0 + v.xy * m1), v_m1 = P(2) * (v.xy * m0 + v.yy * m1);
    auto through_factor = [&](const Vec3<P>& m) {
        return shape.rotation * Vec3<P>{m.x * shape.scale.x, m.y * shape.scale.y, m.z * shape.scale.z};
    };
    v_row0 = through_factor(v_m0);
    v_row1 = through_factor(v_m1);
    shape_adjoint(g, shape, map, v_m0, v_m1, out, rows);
}

template <class P>
DGR_HD void write_zeros(const Gaussians& g, const ProjectGradients& out, const Masked<P>& rows) {
    P zero[3 * (kMaxBasis - 1)];
    for (P& z : zero) z = P(0);
    rows.write(out.means, 3, zero);
    rows.write(out.quats, 4, zero);
    rows.write(out.scales, 3, zero);
    rows.write(out.covs, 6, zero);
    rows.write(out.opacities, 1, zero);
    rows.write(out.sh_dc, g.dc_stride, 3, zero);
    if constexpr (P::lanes == 1) {
        for (int k = 0; k < g.rest && out.sh_rest; ++k)
            rows.write(static_cast<typename P::Scalar*>(out.sh_rest) + 3 * k, g.rest_stride, 3, zero);
    } else if (g.rest) {
        rows.write(out.sh_rest, g.rest_stride, 3 * g.rest, zero);
    }
    rows.write(out.colors, 3, zero);
    rows.write(out.means2d, out.means2d_columns, zero);
}

template <class P>
DGR_HD void project_adjoint_pack(const Camera& camera, const Pinhole<P>& lens, const Gaussians& g,
                                 const void* splats, const ProjectGradients& out, const Masked<P>& rows) {
    using S = typename P::Scalar;
    P row[kSplatFields], sums[kSlotFields];
    load_rows<P>(static_cast<const S*>(splats) + kSplatFields * rows.begin, kSplatFields, kSplatFields, rows.valid,
                 row);
    sum_slots<P>(out, rows.begin, rows.valid, sums);
    const Vec3<P> mean = load_vec3<P>(g.means, rows.begin, rows.valid);
    const Vec3<P> v_view = color_adjoint(camera, g, mean, row, sums, out, rows);

    const Whitening<P> l{row[kL1], row[kL2], row[kL3]};
    P v_u, v_v;
    mean_gradient(l, sums[kVp], sums[kVs], v_u, v_v);
    const P ndc_x{S(0.5 * camera.width)}, ndc_y{S(0.5 * camera.height)}, unscale{S(2 * kLn2)};
    P v_means2d[4] = {v_u * ndc_x, v_v * ndc_y, unscale * l.l1 * sums[kAbsX] * ndc_x, unscale * sums[kAbsY] * ndc_y};
    rows.write(out.means2d, out.means2d_columns, v_means2d);

    const P opacity = row[kOpacity];
    P v_opacity = g.raw ? sums[kV] * (P(1) - opacity) : sums[kV] / opacity;
    rows.write(out.opacities, 1, &v_opacity);

    const PixelMap<P> map = pixel_map(lens, mean);
    Vec3<P> v_row0, v_row1;
    shadow_adjoint(g, map, covariance_gradient(l, sums[kVpp], sums[kVps], sums[kVss]), v_row0, v_row1, out, rows);
    const P v_depth = sums[kVDepth] - row[kInverseDepth] * row[kInverseDepth] * sums[kVInverseDepth];
    const Vec3<P> v_mean = v_view + pixel_map_adjoint(lens, map, v_u, v_v, v_row0, v_row1, v_depth);
    P v[3] = {v_mean.x, v_mean.y, v_mean.z};
    rows.write(out.means, 3, v);
}

template <class P>
DGR_KERNEL void project_adjoint(const Camera& camera, const Gaussians& g, const void* splats, const int32_t* radii,
                     const ProjectGradients& out, int64_t begin, int64_t end) {
    using S = typename P::Scalar;
    const Pinhole<P> lens = pinhole<P>(camera);
    for (int64_t i = begin; i < end; i += P::lanes) {
        const int valid = end - i < P::lanes ? int(end - i) : P::lanes;
        S seen[P::lanes];
        bool any = false;
        for (int k = 0; k < P::lanes; ++k) {
            seen[k] = k < valid && radii[i + k] > 0 ? S(1) : S(0);
            any = any || seen[k] > S(0);
        }
        const Masked<P> rows{P::load(seen) > P(0), i, valid};
        if (any)
            project_adjoint_pack(camera, lens, g, splats, out, rows);
        else
            write_zeros(g, out, rows);
    }
}

}  // namespace dgr::DGR_ISA

// SPDX-License-Identifier: Apache-2.0
// Gaussians -> projected rows, a pack of Gaussians at a time.
//
// Plan: transpose a pack of parameter rows into lanes, run the per-Gaussian maths on packs, skip
// the colour where no lane is visible, transpose back into 64-byte rows. Lanes that are not visible compute
// garbage that nothing reads: radii[i] = 0 says so. A CUDA thread is a pack of one lane.
#pragma once

#include "../project.h"
#include "../splat.h"
#include "constants.h"
#include "covariance.h"
#include "project.h"
#include "rows.h"
#include "sh.h"

#if !defined(DGR_REAL)
#define DGR_REAL double  // of the camera and the settings; CUDA sources say float
#endif

namespace dgr::DGR_ISA {

using Camera = CameraOf<DGR_REAL>;
using Gaussians = GaussiansOf<DGR_REAL>;

template <class P>
DGR_HD Vec3<P> load_vec3(const void* array, int64_t begin, int valid, int stride = 3) {
    P c[3];
    load_rows<P>(static_cast<const typename P::Scalar*>(array) + stride * begin, stride, 3, valid, c);
    return {c[0], c[1], c[2]};
}

template <class P>
DGR_HD Pinhole<P> pinhole(const Camera& c) {
    using S = typename P::Scalar;
    const DGR_REAL* m = c.camera_from_world;
    auto p = [](DGR_REAL x) { return P(S(x)); };
    return {{{p(m[0]), p(m[1]), p(m[2])}, {p(m[4]), p(m[5]), p(m[6])}, {p(m[8]), p(m[9]), p(m[10])}},
            {p(m[3]), p(m[7]), p(m[11])},
            p(c.fx), p(c.fy), p(c.cx), p(c.cy),
            p(c.clamp[0]), p(c.clamp[1]), p(c.clamp[2]), p(c.clamp[3])};
}

// Rotation and scale of a pack of Gaussians, activated.
template <class P>
struct Shape {
    Quat<P> q;
    P inverse_norm;
    Vec3<P> scale;
    Mat3<P> rotation;
};

template <class P>
DGR_HD Shape<P> load_shape(const Gaussians& g, int64_t begin, int valid) {
    using S = typename P::Scalar;
    Shape<P> shape;
    P q[4];
    load_rows<P>(static_cast<const S*>(g.quats) + 4 * begin, 4, 4, valid, q);
    shape.scale = load_vec3<P>(g.scales, begin, valid);
    shape.inverse_norm = P(1);
    if (g.raw) {
        shape.inverse_norm = P(1) / sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
        const P log2e{S(kLog2E)};
        shape.scale = {exp2(log2e * shape.scale.x), exp2(log2e * shape.scale.y), exp2(log2e * shape.scale.z)};
    }
    shape.scale = P(S(g.scale_modifier)) * shape.scale;
    shape.q = {q[0] * shape.inverse_norm, q[1] * shape.inverse_norm, q[2] * shape.inverse_norm,
               q[3] * shape.inverse_norm};
    shape.rotation = rotation(shape.q);
    return shape;
}

// One row of the pixel map times R diag(scale).
template <class P>
DGR_HD Vec3<P> times_factor(const Vec3<P>& row, const Shape<P>& shape) {
    const Vec3<P> r = row * shape.rotation;
    return {r.x * shape.scale.x, r.y * shape.scale.y, r.z * shape.scale.z};
}

template <class P>
DGR_HD Sym3<P> load_covariance(const Gaussians& g, int64_t begin, int valid) {
    P c[6];
    load_rows<P>(static_cast<const typename P::Scalar*>(g.covs) + 6 * begin, 6, 6, valid, c);
    const P m{typename P::Scalar(g.scale_modifier * g.scale_modifier)};
    return {m * c[0], m * c[1], m * c[2], m * c[3], m * c[4], m * c[5]};
}

template <class P>
DGR_HD P load_opacity(const Gaussians& g, int64_t begin, int valid) {
    using S = typename P::Scalar;
    P x;
    load_rows<P>(static_cast<const S*>(g.opacities) + begin, 1, 1, valid, &x);
    return g.raw ? P(1) / (P(1) + exp2(P(S(-kLog2E)) * x)) : x;
}

// Unit direction from the camera to the mean, and 1 / distance.
template <class P>
DGR_HD Vec3<P> view_direction(const Camera& camera, const Vec3<P>& mean, P& inverse_distance) {
    using S = typename P::Scalar;
    const Vec3<P> centre{P(S(camera.position[0])), P(S(camera.position[1])), P(S(camera.position[2]))};
    const Vec3<P> offset = mean - centre;
    inverse_distance = P(1) / sqrt(dot(offset, offset));
    return inverse_distance * offset;
}

DGR_HD int used_rest(const Gaussians& g) { return g.sh_rest ? (g.degree + 1) * (g.degree + 1) - 1 : 0; }

// A Gaussian's higher coefficients: a pack transposes them all, a single lane reads each where it lies.
template <class P, bool kOneLane = P::lanes == 1>
struct RestRow {
    P f[3 * (kMaxBasis - 1)];
    DGR_HD RestRow(const Gaussians& g, int64_t begin, int valid, int used) {
        load_rows<P>(static_cast<const typename P::Scalar*>(g.sh_rest) + g.rest_stride * begin, g.rest_stride,
                     3 * used, valid, f);
    }
    DGR_HD P operator[](int i) const { return f[i]; }
};
template <class P>
struct RestRow<P, true> {
    const typename P::Scalar* row;
    DGR_HD RestRow(const Gaussians& g, int64_t begin, int, int)
        : row(static_cast<const typename P::Scalar*>(g.sh_rest) + g.rest_stride * begin) {}
    DGR_HD P operator[](int i) const { return P(row[i]); }
};

template <class P>
DGR_HD Vec3<P> load_color(const Camera& camera, const Gaussians& g, const Vec3<P>& mean, int64_t begin, int valid) {
    using S = typename P::Scalar;
    if (g.colors) return load_vec3<P>(g.colors, begin, valid);
    if (!g.sh_dc) return {P(0), P(0), P(0)};
    P inverse_distance, b[kMaxBasis];
    sh_basis(g.degree, view_direction(camera, mean, inverse_distance), b);
    const Vec3<P> dc = load_vec3<P>(g.sh_dc, begin, valid, g.dc_stride);
    Vec3<P> c = Vec3<P>{P(S(0.5)), P(S(0.5)), P(S(0.5))} + b[0] * dc;
    const int used = used_rest(g);
    const RestRow<P> f(g, begin, valid, used);
    DGR_UNROLL for (int k = 0; k < kMaxBasis - 1; ++k) {
        if (k >= used) break;
        c.x = fma(b[k + 1], f[3 * k], c.x);
        c.y = fma(b[k + 1], f[3 * k + 1], c.y);
        c.z = fma(b[k + 1], f[3 * k + 2], c.z);
    }
    return {max(c.x, P(0)), max(c.y, P(0)), max(c.z, P(0))};
}

// Lowest log2(alpha) that still counts: 8-bit visibility, and the compact box applied to each pixel.
template <class P>
DGR_HD P log2_cut(DGR_REAL mult, P log2_opacity) {
    using S = typename P::Scalar;
    const P floor{S(kLog2AlphaMin)};
    if (mult >= 1) return floor;
    return max(floor, log2_opacity - P(S(mult)) * (log2_opacity - floor));
}

template <class P>
struct Projected {
    Shadow<P> shadow;
    P u, v, depth;
};

template <class P>
DGR_HD Projected<P> project_pack(const Pinhole<P>& camera, const Gaussians& g, const Vec3<P>& mean, int64_t begin,
                                 int valid) {
    const PixelMap<P> map = pixel_map(camera, mean);
    Projected<P> out;
    if (g.covs) {
        out.shadow = shadow_of_covariance(load_covariance<P>(g, begin, valid), map.row0, map.row1);
    } else {
        const Shape<P> shape = load_shape<P>(g, begin, valid);
        out.shadow = shadow_of_factor(times_factor(map.row0, shape), times_factor(map.row1, shape));
    }
    out.u = fma(camera.fx, map.slope_x, camera.cx);
    out.v = fma(camera.fy, map.slope_y, camera.cy);
    out.depth = map.point.z;
    return out;
}

template <class P>
DGR_KERNEL void project(const Camera& camera, const Gaussians& g, const ProjectOutputs& out, int64_t begin, int64_t end) {
    using S = typename P::Scalar;
    const Pinhole<P> lens = pinhole<P>(camera);
    const P half(S(0.5)), right(S(camera.width - 0.5)), bottom(S(camera.height - 0.5));
    for (int64_t i = begin; i < end; i += P::lanes) {
        const int valid = end - i < P::lanes ? int(end - i) : P::lanes;
        const Vec3<P> mean = load_vec3<P>(g.means, i, valid);
        const Projected<P> p = project_pack(lens, g, mean, i, valid);
        const P opacity = load_opacity<P>(g, i, valid);
        P row[kSplatFields];
        const Whitening<P> l = whiten(p.shadow);
        row[kX] = p.u, row[kY] = p.v, row[kL1] = l.l1, row[kL2] = l.l2, row[kL3] = l.l3;
        row[kDepth] = p.depth, row[kOpacity] = opacity, row[kInverseDepth] = P(1) / p.depth;
        row[kLog2Opacity] = log2(max(opacity, P(S(1e-6))));
        row[kLog2Cut] = log2_cut(g.mult, row[kLog2Opacity]);

        const P reach = sqrt(max(row[kLog2Opacity] - row[kLog2Cut], P(0))) * P(S(1 / kWhitening));
        row[kReachX] = reach * sqrt(p.shadow.cov.xx);
        row[kReachY] = reach * sqrt(p.shadow.cov.yy);
        row[kLean] = p.shadow.cov.xy / p.shadow.cov.xx * row[kReachX];

        const P radius = ceil(P(3) * sqrt(larger_eigenvalue(p.shadow)));
        const auto visible = (p.depth > P(S(camera.near))) & (opacity > P(S(kAlphaMin))) & (P(S(kMaxRadius)) > radius) &
                             (p.shadow.determinant > P(0)) & (P(S(kMaxDeterminant)) > p.shadow.determinant) &
                             (p.u + row[kReachX] > half) & (right > p.u - row[kReachX]) &
                             (p.v + row[kReachY] > half) & (bottom > p.v - row[kReachY]);
        S radii[P::lanes];
        select(visible, radius, P(0)).store(radii);
        for (int k = 0; k < valid; ++k) out.radii[i + k] = int32_t(radii[k]);
        if (!bits(visible)) continue;
        const Vec3<P> color = load_color(camera, g, mean, i, valid);
        row[kRed] = color.x, row[kGreen] = color.y, row[kBlue] = color.z;
        store_rows(static_cast<S*>(out.splats) + kSplatFields * i, kSplatFields, kSplatFields, valid, row);
    }
}

}  // namespace dgr::DGR_ISA

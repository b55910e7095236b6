// SPDX-License-Identifier: Apache-2.0
// One Gaussian through one camera: mean, 2D covariance, whitening, and the adjoint.
//
// A perspective camera is not affine, so the image of a Gaussian is not a Gaussian; this takes the affine map
// that agrees with the camera at the mean (Zwicker et al., "EWA Splatting", TVCG 2002, eq. 29-31), with the
// ray's slope clamped so that splats beside the view do not explode.
//
// T is any scalar; it needs + - * / and, found by its namespace: sqrt, select(mask, a, b), and comparisons.
#pragma once

#include "constants.h"
#include "small_matrix.h"

namespace dgr {

template <class T>
struct Pinhole {
    Mat3<T> rotation;         // camera_from_world
    Vec3<T> translation;
    T fx, fy, cx, cy;         // px
    T xmin, xmax, ymin, ymax; // clamp of x/z and y/z in the Jacobian
};

// Affine map of world offsets to pixel offsets around the mean: two rows.
template <class T>
struct PixelMap {
    Vec3<T> point;            // mean in camera space
    T inverse_z, slope_x, slope_y;          // x/z, y/z
    T clamped_x, clamped_y;
    Vec3<T> row0, row1;
};

template <class T>
DGR_HD T clamp(const T& x, const T& low, const T& high) {
    return select(x < low, low, select(x > high, high, x));
}

template <class T>
DGR_HD PixelMap<T> pixel_map(const Pinhole<T>& camera, const Vec3<T>& mean) {
    PixelMap<T> m;
    m.point = camera.rotation * mean + camera.translation;
    m.inverse_z = T(1) / m.point.z;
    m.slope_x = m.point.x * m.inverse_z;
    m.slope_y = m.point.y * m.inverse_z;
    m.clamped_x = clamp(m.slope_x, camera.xmin, camera.xmax);
    m.clamped_y = clamp(m.slope_y, camera.ymin, camera.ymax);
    const T jx = camera.fx * m.inverse_z, jy = camera.fy * m.inverse_z;
    m.row0 = jx * camera.rotation.r0 - (jx * m.clamped_x) * camera.rotation.r2;
    m.row1 = jy * camera.rotation.r1 - (jy * m.clamped_y) * camera.rotation.r2;
    return m;
}

// Gradient of the mean, given those of the pixel (v_u, v_v), the two rows, and the depth.
template <class T>
DGR_HD Vec3<T> pixel_map_adjoint(const Pinhole<T>& camera, const PixelMap<T>& m, const T& v_u, const T& v_v,
                                 const Vec3<T>& v_row0, const Vec3<T>& v_row1, const T& v_depth) {
    const T v_j00 = dot(v_row0, camera.rotation.r0), v_j02 = dot(v_row0, camera.rotation.r2);
    const T v_j11 = dot(v_row1, camera.rotation.r1), v_j12 = dot(v_row1, camera.rotation.r2);
    const T free_x = select(m.slope_x < camera.xmin, T(0), select(m.slope_x > camera.xmax, T(0), T(1)));
    const T free_y = select(m.slope_y < camera.ymin, T(0), select(m.slope_y > camera.ymax, T(0), T(1)));
    const T v_slope_x = camera.fx * (v_u - free_x * m.inverse_z * v_j02);
    const T v_slope_y = camera.fy * (v_v - free_y * m.inverse_z * v_j12);
    const T v_inverse_z = camera.fx * (v_j00 - m.clamped_x * v_j02) + camera.fy * (v_j11 - m.clamped_y * v_j12) +
                          v_slope_x * m.point.x + v_slope_y * m.point.y;
    const Vec3<T> v_point{v_slope_x * m.inverse_z, v_slope_y * m.inverse_z,
                          v_depth - v_inverse_z * m.inverse_z * m.inverse_z};
    return v_point * camera.rotation;
}

// 2D covariance of the dilated splat, px^2, and its determinant.
template <class T>
struct Shadow {
    Sym2<T> cov;
    T determinant;
};

template <class T>
DGR_HD Shadow<T> dilate(const T& a, const T& b, const T& c, const T& determinant) {
    const T h(kDilation);
    return {{a + h, b, c + h}, determinant + h * (a + c) + h * h};
}

// From the factor's image (rows of pixel_map times F). The determinant of rows m0, m1 is |m0 x m1|^2: exact for
// needles, where a c - b^2 would cancel.
template <class T>
DGR_HD Shadow<T> shadow_of_factor(const Vec3<T>& m0, const Vec3<T>& m1) {
    const Vec3<T> n = cross(m0, m1);
    return dilate(dot(m0, m0), dot(m0, m1), dot(m1, m1), dot(n, n));
}

template <class T>
DGR_HD Shadow<T> shadow_of_covariance(const Sym3<T>& cov, const Vec3<T>& row0, const Vec3<T>& row1) {
    const T a = dot(row0, cov * row0), b = dot(row0, cov * row1), c = dot(row1, cov * row1);
    return dilate(a, b, c, a * c - b * b);
}

// The triangular L with L^T L = inverse covariance / (2 ln 2): [[l1, l2], [0, l3]].
template <class T>
struct Whitening {
    T l1, l2, l3;
};

template <class T>
DGR_HD Whitening<T> whiten(const Shadow<T>& shadow) {
    const T inverse_sd_y = T(kWhitening) / sqrt(shadow.cov.yy);
    const T inverse_sd_det = T(1) / sqrt(shadow.determinant);
    return {inverse_sd_det * sqrt(shadow.cov.yy) * T(kWhitening), -(shadow.cov.xy * inverse_sd_det * inverse_sd_y),
            inverse_sd_y};
}

// Gradient of the 2D mean: moments (p, s) of v = dL/d ln(alpha), times L^T, with the whitening's scale undone.
template <class T>
DGR_HD void mean_gradient(const Whitening<T>& l, const T& m_p, const T& m_s, T& v_u, T& v_v) {
    const T unscale(2 * kLn2);
    v_u = unscale * l.l1 * m_p;
    v_v = unscale * (l.l2 * m_p + l.l3 * m_s);
}

// Full symmetric dL/dcov = 1/2 L^T M L / scale^4; the scalar b's own gradient would be twice its xy.
template <class T>
DGR_HD Sym2<T> covariance_gradient(const Whitening<T>& l, const T& pp, const T& ps, const T& ss) {
    const T half_unscaled(2 * kLn2 * kLn2);
    const T u = pp * l.l2 + ps * l.l3;
    const T v = ps * l.l2 + ss * l.l3;
    return {half_unscaled * l.l1 * l.l1 * pp, half_unscaled * l.l1 * u, half_unscaled * (l.l2 * u + l.l3 * v)};
}

template <class T>
DGR_HD T larger_eigenvalue(const Shadow<T>& shadow) {
    const T middle = T(0.5) * (shadow.cov.xx + shadow.cov.yy);
    const T spread = middle * middle - shadow.determinant;
    return middle + sqrt(select(spread > T(0.1), spread, T(0.1)));
}

}  // namespace dgr

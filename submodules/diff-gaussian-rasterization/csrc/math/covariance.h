// SPDX-License-Identifier: Apache-2.0
// Shape of a Gaussian: cov = F F^T with F = R(q) diag(scales).
//
// `x` has the gradient `v_x`; the adjoint of f is f_adjoint. v_R[i][j] is dL/dR_ij.
#pragma once

#include "small_matrix.h"

namespace dgr {

template <class T>
struct Quat {
    T w, x, y, z;
};

// The polynomial of a unit quaternion; other lengths are not normalised here.
template <class T>
DGR_HD Mat3<T> rotation(const Quat<T>& q) {
    const T one(1), two(2);
    const T xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z;
    const T xy = q.x * q.y, xz = q.x * q.z, yz = q.y * q.z;
    const T wx = q.w * q.x, wy = q.w * q.y, wz = q.w * q.z;
    return {{one - two * (yy + zz), two * (xy - wz), two * (xz + wy)},
            {two * (xy + wz), one - two * (xx + zz), two * (yz - wx)},
            {two * (xz - wy), two * (yz + wx), one - two * (xx + yy)}};
}

template <class T>
DGR_HD Quat<T> rotation_adjoint(const Quat<T>& q, const Mat3<T>& v) {
    const T two(2);
    const T a = v.r2.y - v.r1.z, b = v.r0.z - v.r2.x, c = v.r1.x - v.r0.y;  // antisymmetric part
    const T d = v.r0.y + v.r1.x, e = v.r0.z + v.r2.x, f = v.r1.z + v.r2.y;  // symmetric part
    return {two * (q.x * a + q.y * b + q.z * c),
            two * (q.y * d + q.z * e + q.w * a - two * q.x * (v.r1.y + v.r2.z)),
            two * (q.x * d + q.z * f + q.w * b - two * q.y * (v.r0.x + v.r2.z)),
            two * (q.x * e + q.y * f + q.w * c - two * q.z * (v.r0.x + v.r1.y))};
}

// With n = q |q|: the gradient of q, given 1/|q| and the unit n.
template <class T>
DGR_HD Quat<T> normalize_adjoint(const Quat<T>& n, const T& inverse_norm, const Quat<T>& v) {
    const T along = n.w * v.w + n.x * v.x + n.y * v.y + n.z * v.z;
    return {(v.w - n.w * along) * inverse_norm, (v.x - n.x * along) * inverse_norm,
            (v.y - n.y * along) * inverse_norm, (v.z - n.z * along) * inverse_norm};
}

}  // namespace dgr

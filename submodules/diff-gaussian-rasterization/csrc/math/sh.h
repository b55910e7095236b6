// SPDX-License-Identifier: Apache-2.0
// Real spherical harmonics up to degree 3, in the sign convention of 3D Gaussian splatting.
#pragma once

#include "small_matrix.h"

namespace dgr {

constexpr int kMaxBasis = 16;

// b[k] = k-th basis function at the unit vector d, for k < (degree + 1)^2.
template <class T>
DGR_HD void sh_basis(int degree, const Vec3<T>& d, T* b) {
    b[0] = T(0.28209479177387814);
    if (degree < 1) return;
    b[1] = T(-0.4886025119029199) * d.y;
    b[2] = T(0.4886025119029199) * d.z;
    b[3] = T(-0.4886025119029199) * d.x;
    if (degree < 2) return;
    const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
    b[4] = T(1.0925484305920792) * d.x * d.y;
    b[5] = T(-1.0925484305920792) * d.y * d.z;
    b[6] = T(0.31539156525252005) * (T(2) * zz - xx - yy);
    b[7] = T(-1.0925484305920792) * d.x * d.z;
    b[8] = T(0.5462742152960396) * (xx - yy);
    if (degree < 3) return;
    b[9] = T(-0.5900435899266435) * d.y * (T(3) * xx - yy);
    b[10] = T(2.890611442640554) * d.x * d.y * d.z;
    b[11] = T(-0.4570457994644658) * d.y * (T(4) * zz - xx - yy);
    b[12] = T(0.3731763325901154) * d.z * (T(2) * zz - T(3) * xx - T(3) * yy);
    b[13] = T(-0.4570457994644658) * d.x * (T(4) * zz - xx - yy);
    b[14] = T(1.445305721320277) * d.z * (xx - yy);
    b[15] = T(-0.5900435899266435) * d.x * (xx - T(3) * yy);
}

// dL/dd, given v[k] = dL/db_k for k < (degree + 1)^2.
template <class T>
DGR_HD Vec3<T> sh_basis_adjoint(int degree, const Vec3<T>& d, const T* v) {
    Vec3<T> g{T(0), T(0), T(0)};
    if (degree < 1) return g;
    const T c1(0.4886025119029199);
    g.x = -(c1 * v[3]);
    g.y = -(c1 * v[1]);
    g.z = c1 * v[2];
    if (degree < 2) return g;
    const T c2(1.0925484305920792), c6(0.6307831305050401);
    const T v4 = c2 * v[4], v5 = c2 * v[5], v6 = c6 * v[6], v7 = c2 * v[7], v8 = c2 * v[8];
    g.x = g.x + v4 * d.y - v6 * d.x - v7 * d.z + v8 * d.x;
    g.y = g.y + v4 * d.x - v5 * d.z - v6 * d.y - v8 * d.y;
    g.z = g.z - v5 * d.y + T(2) * v6 * d.z - v7 * d.x;
    if (degree < 3) return g;
    const T xx = d.x * d.x, yy = d.y * d.y, zz = d.z * d.z;
    const T xy = d.x * d.y, xz = d.x * d.z, yz = d.y * d.z;
    const T v9 = T(0.5900435899266435) * v[9], v10 = T(2.890611442640554) * v[10];
    const T v11 = T(0.4570457994644658) * v[11], v12 = T(0.3731763325901154) * v[12];
    const T v13 = T(0.4570457994644658) * v[13], v14 = T(1.445305721320277) * v[14];
    const T v15 = T(0.5900435899266435) * v[15];
    const T two(2), three(3), four(4), six(6), eight(8);
    const T saddle = three * (xx - yy), bowl = four * zz - xx - yy;
    g.x = g.x - six * xy * v9 + yz * v10 + two * xy * v11 - six * xz * v12 - (bowl - two * xx) * v13 +
          two * xz * v14 - saddle * v15;
    g.y = g.y - saddle * v9 + xz * v10 - (bowl - two * yy) * v11 - six * yz * v12 + two * xy * v13 -
          two * yz * v14 + six * xy * v15;
    g.z = g.z + xy * v10 - eight * yz * v11 + (six * zz - three * (xx + yy)) * v12 - eight * xz * v13 +
          (xx - yy) * v14;
    return g;
}

}  // namespace dgr

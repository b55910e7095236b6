// SPDX-License-Identifier: Apache-2.0
// Vectors and matrices of three, over any scalar: float, double, a pack of lanes, a dual number.
#pragma once

#include "host_device.h"

namespace dgr {

template <class T>
struct Vec3 {
    T x, y, z;
};

template <class T>
DGR_HD Vec3<T> operator+(const Vec3<T>& a, const Vec3<T>& b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
template <class T>
DGR_HD Vec3<T> operator-(const Vec3<T>& a, const Vec3<T>& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
template <class T>
DGR_HD Vec3<T> operator*(const T& s, const Vec3<T>& a) { return {s * a.x, s * a.y, s * a.z}; }
template <class T>
DGR_HD T dot(const Vec3<T>& a, const Vec3<T>& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
template <class T>
DGR_HD Vec3<T> cross(const Vec3<T>& a, const Vec3<T>& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Three rows.
template <class T>
struct Mat3 {
    Vec3<T> r0, r1, r2;
};

template <class T>
DGR_HD Vec3<T> operator*(const Mat3<T>& m, const Vec3<T>& v) { return {dot(m.r0, v), dot(m.r1, v), dot(m.r2, v)}; }
// v^T m, which is m^T v.
template <class T>
DGR_HD Vec3<T> operator*(const Vec3<T>& v, const Mat3<T>& m) { return v.x * m.r0 + (v.y * m.r1 + v.z * m.r2); }

// A symmetric matrix: its upper triangle.
template <class T>
struct Sym3 {
    T xx, xy, xz, yy, yz, zz;
};

template <class T>
DGR_HD Vec3<T> operator*(const Sym3<T>& m, const Vec3<T>& v) {
    return {m.xx * v.x + m.xy * v.y + m.xz * v.z, m.xy * v.x + m.yy * v.y + m.yz * v.z,
            m.xz * v.x + m.yz * v.y + m.zz * v.z};
}

template <class T>
struct Sym2 {
    T xx, xy, yy;
};

}  // namespace dgr

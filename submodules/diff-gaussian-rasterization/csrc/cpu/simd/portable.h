// SPDX-License-Identifier: Apache-2.0
// N lanes of float or double in the vector extension of GCC and clang: any processor, any scalar.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../../math/host_device.h"

namespace dgr::portable {

// Spelt out for the two widths in use: GCC 12 drops vector_size from dependent types.
template <class S, int N>
struct Vector;
template <>
struct Vector<float, 8> {
    typedef float V __attribute__((vector_size(32)));
    typedef int32_t I __attribute__((vector_size(32)));
};
template <>
struct Vector<double, 4> {
    typedef double V __attribute__((vector_size(32)));
    typedef int64_t I __attribute__((vector_size(32)));
};

template <class S, int N>
struct Pack {
    using Scalar = S;
    static constexpr int lanes = N;
    using V = typename Vector<S, N>::V;
    using I = typename Vector<S, N>::I;
    struct Mask {
        I m;
    };

    V v;
    Pack() = default;
    DGR_HD explicit Pack(S x) : v(x - V{}) {}
    DGR_HD explicit Pack(V x) : v(x) {}
    static DGR_HD Pack load(const S* p) {
        Pack r;
        std::memcpy(&r.v, p, sizeof r.v);
        return r;
    }
    DGR_HD void store(S* p) const { std::memcpy(p, &v, sizeof v); }

    // Lanes <-> N / 4 rows of four values, `stride` apart.
    static DGR_HD Pack load_rows(const S* rows, int64_t stride) {
        Pack r;
        for (int i = 0; i < N; ++i) r.v[i] = rows[i / 4 * stride + i % 4];
        return r;
    }
    DGR_HD void store_rows(S* rows, int64_t stride) const {
        for (int i = 0; i < N; ++i) rows[i / 4 * stride + i % 4] = v[i];
    }
    // Lane i <- the four values at rows + i * stride.
    static DGR_HD void load_quad(const S* rows, int stride, Pack* out) {
        for (int c = 0; c < 4; ++c)
            for (int i = 0; i < N; ++i) out[c].v[i] = rows[i * stride + c];
    }
    static DGR_HD void store_quad(S* rows, int stride, const Pack* in) {
        for (int i = 0; i < N; ++i)
            for (int c = 0; c < 4; ++c) rows[i * stride + c] = in[c].v[i];
    }
};

#define DGR_PACK template <class S, int N> DGR_HD
#define DGR_P Pack<S, N>
DGR_PACK DGR_P operator+(DGR_P a, DGR_P b) { return DGR_P(a.v + b.v); }
DGR_PACK DGR_P operator-(DGR_P a, DGR_P b) { return DGR_P(a.v - b.v); }
DGR_PACK DGR_P operator*(DGR_P a, DGR_P b) { return DGR_P(a.v * b.v); }
DGR_PACK DGR_P operator/(DGR_P a, DGR_P b) { return DGR_P(a.v / b.v); }
DGR_PACK DGR_P operator-(DGR_P a) { return DGR_P(-a.v); }
DGR_PACK typename DGR_P::Mask operator<(DGR_P a, DGR_P b) { return {a.v < b.v}; }
DGR_PACK typename DGR_P::Mask operator>(DGR_P a, DGR_P b) { return {a.v > b.v}; }
DGR_PACK typename DGR_P::Mask operator>=(DGR_P a, DGR_P b) { return {a.v >= b.v}; }
// a b + c and c - a b; one rounding where the instruction set has it.
DGR_PACK DGR_P fma(DGR_P a, DGR_P b, DGR_P c) { return DGR_P(a.v * b.v + c.v); }
DGR_PACK DGR_P fnma(DGR_P a, DGR_P b, DGR_P c) { return DGR_P(c.v - a.v * b.v); }
DGR_PACK DGR_P min(DGR_P a, DGR_P b) { return DGR_P(a.v < b.v ? a.v : b.v); }
DGR_PACK DGR_P max(DGR_P a, DGR_P b) { return DGR_P(a.v > b.v ? a.v : b.v); }
DGR_PACK DGR_P sqrt(DGR_P a) {
    for (int i = 0; i < N; ++i) a.v[i] = std::sqrt(a.v[i]);
    return a;
}
DGR_PACK DGR_P ceil(DGR_P a) {
    for (int i = 0; i < N; ++i) a.v[i] = std::ceil(a.v[i]);
    return a;
}
DGR_PACK DGR_P floor(DGR_P a) {
    for (int i = 0; i < N; ++i) a.v[i] = std::floor(a.v[i]);
    return a;
}
DGR_PACK DGR_P abs(DGR_P a) { return DGR_P(a.v < 0 ? -a.v : a.v); }
// -|a|: how a pixel that has stopped carries its transmittance.
DGR_PACK DGR_P negative(DGR_P a) { return DGR_P(a.v < 0 ? a.v : -a.v); }
DGR_PACK DGR_P log2(DGR_P a) {
    for (int i = 0; i < N; ++i) a.v[i] = std::log2(a.v[i]);
    return a;
}
DGR_PACK DGR_P exp2(DGR_P a) {
    for (int i = 0; i < N; ++i) a.v[i] = std::exp2(a.v[i]);
    return a;
}
DGR_PACK S reduce_add(DGR_P a) {
    S sum = a.v[0];
    for (int i = 1; i < N; ++i) sum += a.v[i];
    return sum;
}
DGR_PACK S reduce_max(DGR_P a) {
    S top = a.v[0];
    for (int i = 1; i < N; ++i) top = a.v[i] > top ? a.v[i] : top;
    return top;
}
DGR_PACK void reduce_add8(const DGR_P* in, S* out) {
    for (int k = 0; k < 8; ++k) out[k] = reduce_add(in[k]);
}
// Bit i: lane i is negative.
DGR_PACK unsigned sign_bits(DGR_P a) {
    unsigned bits = 0;
    for (int i = 0; i < N; ++i) bits |= unsigned(std::signbit(a.v[i])) << i;
    return bits;
}
#undef DGR_PACK
#undef DGR_P

template <class P>
using MaskOf = typename P::Mask;

// Masks are plain structs; these find them by their namespace.
template <class M, class = decltype(M::m)>
DGR_HD M operator&(M a, M b) { return {a.m & b.m}; }
template <class M, class = decltype(M::m)>
DGR_HD unsigned bits(M a) {
    constexpr int n = sizeof(a.m) / sizeof(a.m[0]);
    unsigned b = 0;
    for (int i = 0; i < n; ++i) b |= unsigned(a.m[i] & 1) << i;
    return b;
}
template <class S, int N>
DGR_HD Pack<S, N> select(typename Pack<S, N>::Mask m, Pack<S, N> a, Pack<S, N> b) {
    return Pack<S, N>(m.m ? a.v : b.v);
}
// a where m, else 0.
template <class S, int N>
DGR_HD Pack<S, N> keep(typename Pack<S, N>::Mask m, Pack<S, N> a) {
    using P = Pack<S, N>;
    return P((typename P::V)((typename P::I)a.v & m.m));
}

// One byte per lane, from bit first[i] to bit last[i], for the first eight lanes; empty where !m or last < first.
// Both are whole numbers; first is 0 ... 8 and last -1 ... 7.
template <class S, int N>
DGR_HD uint64_t bit_ranges(typename Pack<S, N>::Mask m, Pack<S, N> first, Pack<S, N> last) {
    uint64_t bytes = 0;
    for (int i = 0; i < (N < 8 ? N : 8); ++i)
        if (m.m[i] && last.v[i] >= first.v[i])
            bytes |= uint64_t((2u << int(last.v[i])) - (1u << int(first.v[i]))) << (8 * i);
    return bytes;
}

// 2^x for |x| < 126; any finite value of the scalar is safe, its result then has no meaning.
template <int N>
DGR_HD Pack<float, N> exp2_bounded(Pack<float, N> x) {
    using P = Pack<float, N>;
    const P magic(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    const P shifted = x + magic;
    const P f = x - (shifted - magic);
    P p = fma(P(1.3333558e-3f), f, P(9.6181291e-3f));
    p = fma(p, f, P(5.5504109e-2f));
    p = fma(p, f, P(2.4022651e-1f));
    p = fma(p, f, P(6.9314718e-1f));
    p = fma(p, f, P(1.0f));
    return P((typename P::V)((typename P::I)p.v + ((typename P::I)shifted.v << 23)));
}
template <int N>
DGR_HD Pack<double, N> exp2_bounded(Pack<double, N> x) { return exp2(x); }

using FloatPack = Pack<float, 8>;
using DoublePack = Pack<double, 4>;

}  // namespace dgr::portable

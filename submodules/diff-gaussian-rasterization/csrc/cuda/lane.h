// SPDX-License-Identifier: Apache-2.0
// A pack of one lane: what ../math computes with in a CUDA thread. Every function of ../cpu/simd/portable.h that the
// shared maths uses, by the same name. Nothing is contracted: products that are to be fused say so, so that forward
// and adjoint decide alike.
#pragma once

#include <cmath>
#include <cstdint>

#include "../math/host_device.h"
#include "device.h"

#define DGR_ISA lane
#define DGR_REAL float

namespace dgr::lane {

struct Mask {
    bool m;
};

struct Lane {
    using Scalar = float;
    using Mask = lane::Mask;
    static constexpr int lanes = 1;

    float v;
    Lane() = default;
    DGR_HD explicit Lane(float x) : v(x) {}
    static DGR_HD Lane load(const float* p) { return Lane(*p); }
    DGR_HD void store(float* p) const { *p = v; }

    static DGR_HD bool aligned(const float* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }
    static DGR_HD void load_quad(const float* row, int, Lane* out) {
        if (aligned(row)) {
            const float4 quad = *reinterpret_cast<const float4*>(row);
            out[0].v = quad.x, out[1].v = quad.y, out[2].v = quad.z, out[3].v = quad.w;
        } else {
            for (int c = 0; c < 4; ++c) out[c].v = row[c];
        }
    }
    static DGR_HD void store_quad(float* row, int, const Lane* in) {
        if (aligned(row))
            *reinterpret_cast<float4*>(row) = make_float4(in[0].v, in[1].v, in[2].v, in[3].v);
        else
            for (int c = 0; c < 4; ++c) row[c] = in[c].v;
    }
};

DGR_HD Lane operator+(Lane a, Lane b) { return Lane(a.v + b.v); }
DGR_HD Lane operator-(Lane a, Lane b) { return Lane(a.v - b.v); }
DGR_HD Lane operator*(Lane a, Lane b) { return Lane(a.v * b.v); }
DGR_HD Lane operator/(Lane a, Lane b) { return Lane(a.v / b.v); }
DGR_HD Lane operator-(Lane a) { return Lane(-a.v); }
DGR_HD Mask operator<(Lane a, Lane b) { return {a.v < b.v}; }
DGR_HD Mask operator>(Lane a, Lane b) { return {a.v > b.v}; }
DGR_HD Mask operator>=(Lane a, Lane b) { return {a.v >= b.v}; }
DGR_HD Mask operator&(Mask a, Mask b) { return {a.m && b.m}; }
DGR_HD unsigned bits(Mask a) { return a.m; }
DGR_HD Lane fma(Lane a, Lane b, Lane c) { return Lane(::fmaf(a.v, b.v, c.v)); }
DGR_HD Lane fnma(Lane a, Lane b, Lane c) { return Lane(::fmaf(-a.v, b.v, c.v)); }
DGR_HD Lane min(Lane a, Lane b) { return Lane(a.v < b.v ? a.v : b.v); }
DGR_HD Lane max(Lane a, Lane b) { return Lane(a.v > b.v ? a.v : b.v); }
DGR_HD Lane sqrt(Lane a) { return Lane(::sqrtf(a.v)); }
DGR_HD Lane ceil(Lane a) { return Lane(::ceilf(a.v)); }
DGR_HD Lane floor(Lane a) { return Lane(::floorf(a.v)); }
DGR_HD Lane abs(Lane a) { return Lane(::fabsf(a.v)); }
DGR_HD Lane negative(Lane a) { return Lane(-::fabsf(a.v)); }
DGR_HD Lane log2(Lane a) { return Lane(::log2f(a.v)); }
DGR_HD Lane exp2(Lane a) { return Lane(::exp2f(a.v)); }
DGR_HD Lane exp2_bounded(Lane a) { return exp2(a); }
DGR_HD Lane select(Mask m, Lane a, Lane b) { return m.m ? a : b; }
DGR_HD Lane keep(Mask m, Lane a) { return Lane(m.m ? a.v : 0.0f); }

// Bits first to last, both whole numbers; empty where !m or last < first.
DGR_HD uint64_t bit_ranges(Mask m, Lane first, Lane last) {
    return m.m && last.v >= first.v ? (2u << int(last.v)) - (1u << int(first.v)) : 0u;
}

}  // namespace dgr::lane

// SPDX-License-Identifier: Apache-2.0
// Sixteen lanes of float in one AVX-512 register; every function of portable.h, by the same name.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../../math/host_device.h"

namespace dgr::avx512 {

struct Mask {
    __mmask16 m;
};

struct Pack {
    using Scalar = float;
    using Mask = avx512::Mask;
    static constexpr int lanes = 16;

    __m512 v;
    Pack() = default;
    DGR_HD explicit Pack(float x) : v(_mm512_set1_ps(x)) {}
    DGR_HD explicit Pack(__m512 x) : v(x) {}
    static DGR_HD Pack load(const float* p) { return Pack(_mm512_loadu_ps(p)); }
    DGR_HD void store(float* p) const { _mm512_storeu_ps(p, v); }
    static DGR_HD Pack load_rows(const float* rows, int64_t stride);
    DGR_HD void store_rows(float* rows, int64_t stride) const;
    static DGR_HD void load_quad(const float* rows, int stride, Pack* out);
    static DGR_HD void store_quad(float* rows, int stride, const Pack* in);
};

DGR_HD Pack operator+(Pack a, Pack b) { return Pack(_mm512_add_ps(a.v, b.v)); }
DGR_HD Pack operator-(Pack a, Pack b) { return Pack(_mm512_sub_ps(a.v, b.v)); }
DGR_HD Pack operator*(Pack a, Pack b) { return Pack(_mm512_mul_ps(a.v, b.v)); }
DGR_HD Pack operator/(Pack a, Pack b) { return Pack(_mm512_div_ps(a.v, b.v)); }
DGR_HD Pack operator-(Pack a) { return Pack(_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))); }
DGR_HD Mask operator<(Pack a, Pack b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
DGR_HD Mask operator>(Pack a, Pack b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
DGR_HD Mask operator>=(Pack a, Pack b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
DGR_HD Mask operator&(Mask a, Mask b) { return {__mmask16(a.m & b.m)}; }
DGR_HD unsigned bits(Mask a) { return a.m; }
DGR_HD Pack fma(Pack a, Pack b, Pack c) { return Pack(_mm512_fmadd_ps(a.v, b.v, c.v)); }
DGR_HD Pack fnma(Pack a, Pack b, Pack c) { return Pack(_mm512_fnmadd_ps(a.v, b.v, c.v)); }
DGR_HD Pack min(Pack a, Pack b) { return Pack(_mm512_min_ps(a.v, b.v)); }
DGR_HD Pack max(Pack a, Pack b) { return Pack(_mm512_max_ps(a.v, b.v)); }
DGR_HD Pack sqrt(Pack a) { return Pack(_mm512_sqrt_ps(a.v)); }
DGR_HD Pack ceil(Pack a) { return Pack(_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)); }
DGR_HD Pack floor(Pack a) { return Pack(_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)); }
DGR_HD Pack abs(Pack a) { return Pack(_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)); }
DGR_HD Pack negative(Pack a) { return Pack(_mm512_or_ps(_mm512_set1_ps(-0.0f), a.v)); }
DGR_HD Pack select(Mask m, Pack a, Pack b) { return Pack(_mm512_mask_mov_ps(b.v, m.m, a.v)); }
DGR_HD Pack keep(Mask m, Pack a) { return Pack(_mm512_maskz_mov_ps(m.m, a.v)); }
DGR_HD unsigned sign_bits(Pack a) { return _mm512_movepi32_mask(_mm512_castps_si512(a.v)); }
DGR_HD float reduce_add(Pack a) { return _mm512_reduce_add_ps(a.v); }
DGR_HD float reduce_max(Pack a) { return _mm512_reduce_max_ps(a.v); }

// Sums of four packs, in the order of the arguments, for each 128-bit quarter of the lanes.
DGR_HD __m512 add_quarters4(Pack a, Pack b, Pack c, Pack d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
}
DGR_HD void reduce_add8(const Pack* in, float* out) {
    const __m512 low = add_quarters4(in[0], in[1], in[2], in[3]);
    const __m512 high = add_quarters4(in[4], in[5], in[6], in[7]);
    // Quarters (l0+l1, l2+l3, h0+h1, h2+h3), then neighbours.
    const __m512 pairs = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xDD));
    const __m512 sums = _mm512_add_ps(pairs, _mm512_shuffle_f32x4(pairs, pairs, 0xB1));
    _mm_storeu_ps(out, _mm512_castps512_ps128(sums));
    _mm_storeu_ps(out + 4, _mm512_extractf32x4_ps(sums, 2));
}

// The 4x4 transpose inside each 128-bit lane.
DGR_HD void transpose4(Pack* r) {
    const __m512 a = _mm512_unpacklo_ps(r[0].v, r[1].v), b = _mm512_unpackhi_ps(r[0].v, r[1].v);
    const __m512 c = _mm512_unpacklo_ps(r[2].v, r[3].v), d = _mm512_unpackhi_ps(r[2].v, r[3].v);
    r[0].v = _mm512_shuffle_ps(a, c, 0x44);
    r[1].v = _mm512_shuffle_ps(a, c, 0xEE);
    r[2].v = _mm512_shuffle_ps(b, d, 0x44);
    r[3].v = _mm512_shuffle_ps(b, d, 0xEE);
}
DGR_HD Pack Pack::load_rows(const float* rows, int64_t stride) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(rows));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(rows + stride), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(rows + 2 * stride), 2);
    return Pack(_mm512_insertf32x4(v, _mm_loadu_ps(rows + 3 * stride), 3));
}
DGR_HD void Pack::store_rows(float* rows, int64_t stride) const {
    _mm_storeu_ps(rows, _mm512_castps512_ps128(v));
    _mm_storeu_ps(rows + stride, _mm512_extractf32x4_ps(v, 1));
    _mm_storeu_ps(rows + 2 * stride, _mm512_extractf32x4_ps(v, 2));
    _mm_storeu_ps(rows + 3 * stride, _mm512_extractf32x4_ps(v, 3));
}
DGR_HD void Pack::load_quad(const float* rows, int stride, Pack* out) {
    for (int i = 0; i < 4; ++i) out[i] = load_rows(rows + i * stride, 4 * int64_t(stride));
    transpose4(out);
}
DGR_HD void Pack::store_quad(float* rows, int stride, const Pack* in) {
    Pack r[4] = {in[0], in[1], in[2], in[3]};
    transpose4(r);
    for (int i = 0; i < 4; ++i) r[i].store_rows(rows + i * stride, 4 * int64_t(stride));
}

DGR_HD uint64_t bit_ranges(Mask m, Pack first, Pack last) {
    const __m512i from = _mm512_cvtps_epi32(first.v), to = _mm512_cvtps_epi32(last.v), one = _mm512_set1_epi32(1);
    const __m512i past = _mm512_sllv_epi32(one, _mm512_add_epi32(to, one));
    const __m512i range = _mm512_sub_epi32(past, _mm512_sllv_epi32(one, from));
    const __mmask16 ordered = _mm512_mask_cmple_epi32_mask(m.m, from, to);
    return uint64_t(_mm_cvtsi128_si64(_mm512_maskz_cvtepi32_epi8(ordered, range)));
}

// 2^x; relative error 2e-7. Saturates instead of wrapping.
DGR_HD Pack exp2_bounded(Pack x) {
    const Pack f(_mm512_reduce_ps(x.v, 0));  // x - round(x)
    Pack p = fma(Pack(1.3333558e-3f), f, Pack(9.6181291e-3f));
    p = fma(p, f, Pack(5.5504109e-2f));
    p = fma(p, f, Pack(2.4022651e-1f));
    p = fma(p, f, Pack(6.9314718e-1f));
    p = fma(p, f, Pack(1.0f));
    return Pack(_mm512_scalef_ps(p.v, _mm512_sub_ps(x.v, f.v)));
}
DGR_HD Pack exp2(Pack x) { return exp2_bounded(min(max(x, Pack(-125.9f)), Pack(125.9f))); }

// For normal positive x. With x = m 2^e and t = (m - 1) / (m + 1): log m = 2 atanh(t).
DGR_HD Pack log2(Pack x) {
    const __m512i word = _mm512_castps_si512(x.v);
    const __m512i e = _mm512_srai_epi32(_mm512_sub_epi32(word, _mm512_set1_epi32(0x3f3504f3)), 23);
    const Pack m(_mm512_castsi512_ps(_mm512_sub_epi32(word, _mm512_slli_epi32(e, 23))));
    const Pack t = (m - Pack(1.0f)) / (m + Pack(1.0f));
    const Pack t2 = t * t;
    Pack p = fma(Pack(0.3205989f), t2, Pack(0.41219858f));
    p = fma(p, t2, Pack(0.57707802f));
    p = fma(p, t2, Pack(0.96179669f));
    p = fma(p, t2, Pack(2.88539008f));
    return fma(p, t, Pack(_mm512_cvtepi32_ps(e)));
}

using FloatPack = Pack;

}  // namespace dgr::avx512

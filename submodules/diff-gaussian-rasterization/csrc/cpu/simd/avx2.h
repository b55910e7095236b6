// SPDX-License-Identifier: Apache-2.0
// Eight lanes of float in one AVX2 register; every function of portable.h, by the same name.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../../math/host_device.h"

namespace dgr::avx2 {

struct Mask {
    __m256 m;
};

struct Pack {
    using Scalar = float;
    using Mask = avx2::Mask;
    static constexpr int lanes = 8;

    __m256 v;
    Pack() = default;
    DGR_HD explicit Pack(float x) : v(_mm256_set1_ps(x)) {}
    DGR_HD explicit Pack(__m256 x) : v(x) {}
    static DGR_HD Pack load(const float* p) { return Pack(_mm256_loadu_ps(p)); }
    DGR_HD void store(float* p) const { _mm256_storeu_ps(p, v); }
    static DGR_HD Pack load_rows(const float* rows, int64_t stride) {
        return Pack(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows)), _mm_loadu_ps(rows + stride), 1));
    }
    DGR_HD void store_rows(float* rows, int64_t stride) const {
        _mm_storeu_ps(rows, _mm256_castps256_ps128(v));
        _mm_storeu_ps(rows + stride, _mm256_extractf128_ps(v, 1));
    }
    static DGR_HD void load_quad(const float* rows, int stride, Pack* out);
    static DGR_HD void store_quad(float* rows, int stride, const Pack* in);
};

DGR_HD Pack operator+(Pack a, Pack b) { return Pack(_mm256_add_ps(a.v, b.v)); }
DGR_HD Pack operator-(Pack a, Pack b) { return Pack(_mm256_sub_ps(a.v, b.v)); }
DGR_HD Pack operator*(Pack a, Pack b) { return Pack(_mm256_mul_ps(a.v, b.v)); }
DGR_HD Pack operator/(Pack a, Pack b) { return Pack(_mm256_div_ps(a.v, b.v)); }
DGR_HD Pack operator-(Pack a) { return Pack(_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))); }
DGR_HD Mask operator<(Pack a, Pack b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
DGR_HD Mask operator>(Pack a, Pack b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
DGR_HD Mask operator>=(Pack a, Pack b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
DGR_HD Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.m, b.m)}; }
DGR_HD unsigned bits(Mask a) { return unsigned(_mm256_movemask_ps(a.m)); }
DGR_HD Pack fma(Pack a, Pack b, Pack c) { return Pack(_mm256_fmadd_ps(a.v, b.v, c.v)); }
DGR_HD Pack fnma(Pack a, Pack b, Pack c) { return Pack(_mm256_fnmadd_ps(a.v, b.v, c.v)); }
DGR_HD Pack min(Pack a, Pack b) { return Pack(_mm256_min_ps(a.v, b.v)); }
DGR_HD Pack max(Pack a, Pack b) { return Pack(_mm256_max_ps(a.v, b.v)); }
DGR_HD Pack sqrt(Pack a) { return Pack(_mm256_sqrt_ps(a.v)); }
DGR_HD Pack ceil(Pack a) { return Pack(_mm256_ceil_ps(a.v)); }
DGR_HD Pack floor(Pack a) { return Pack(_mm256_floor_ps(a.v)); }
DGR_HD Pack abs(Pack a) { return Pack(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)); }
DGR_HD Pack negative(Pack a) { return Pack(_mm256_or_ps(_mm256_set1_ps(-0.0f), a.v)); }
DGR_HD Pack select(Mask m, Pack a, Pack b) { return Pack(_mm256_blendv_ps(b.v, a.v, m.m)); }
DGR_HD Pack keep(Mask m, Pack a) { return Pack(_mm256_and_ps(m.m, a.v)); }
DGR_HD unsigned sign_bits(Pack a) { return unsigned(_mm256_movemask_ps(a.v)); }

DGR_HD float reduce_add(Pack a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
DGR_HD float reduce_max(Pack a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// Sums of four packs, in the order of the arguments, for the low and the high half of the lanes.
DGR_HD __m256 add_halves4(Pack a, Pack b, Pack c, Pack d) {
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c.v, d.v), _mm256_unpackhi_ps(c.v, d.v));
    return _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
}
DGR_HD void reduce_add8(const Pack* in, float* out) {
    const __m256 low = add_halves4(in[0], in[1], in[2], in[3]);
    const __m256 high = add_halves4(in[4], in[5], in[6], in[7]);
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                        _mm256_permute2f128_ps(low, high, 0x31)));
}

// The 4x4 transpose inside each 128-bit lane.
DGR_HD void transpose4(Pack* r) {
    const __m256 a = _mm256_unpacklo_ps(r[0].v, r[1].v), b = _mm256_unpackhi_ps(r[0].v, r[1].v);
    const __m256 c = _mm256_unpacklo_ps(r[2].v, r[3].v), d = _mm256_unpackhi_ps(r[2].v, r[3].v);
    r[0].v = _mm256_shuffle_ps(a, c, 0x44);
    r[1].v = _mm256_shuffle_ps(a, c, 0xEE);
    r[2].v = _mm256_shuffle_ps(b, d, 0x44);
    r[3].v = _mm256_shuffle_ps(b, d, 0xEE);
}
DGR_HD void Pack::load_quad(const float* rows, int stride, Pack* out) {
    for (int i = 0; i < 4; ++i)
        out[i].v = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows + i * stride)),
                                        _mm_loadu_ps(rows + (i + 4) * stride), 1);
    transpose4(out);
}
DGR_HD void Pack::store_quad(float* rows, int stride, const Pack* in) {
    Pack r[4] = {in[0], in[1], in[2], in[3]};
    transpose4(r);
    for (int i = 0; i < 4; ++i) {
        _mm_storeu_ps(rows + i * stride, _mm256_castps256_ps128(r[i].v));
        _mm_storeu_ps(rows + (i + 4) * stride, _mm256_extractf128_ps(r[i].v, 1));
    }
}

DGR_HD uint64_t bit_ranges(Mask m, Pack first, Pack last) {
    const __m256i from = _mm256_cvtps_epi32(first.v), to = _mm256_cvtps_epi32(last.v), one = _mm256_set1_epi32(1);
    const __m256i past = _mm256_sllv_epi32(one, _mm256_add_epi32(to, one));
    const __m256i range = _mm256_sub_epi32(past, _mm256_sllv_epi32(one, from));
    const __m256i ordered = _mm256_andnot_si256(_mm256_cmpgt_epi32(from, to), _mm256_castps_si256(m.m));
    const __m256i bits = _mm256_and_si256(range, ordered);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    return uint64_t(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}

// 2^x for |x| < 126; any other x is safe, its result has no meaning. Relative error 2e-7.
DGR_HD Pack exp2_bounded(Pack x) {
    const __m256 magic = _mm256_set1_ps(12582912.0f);  // 1.5 * 2^23: leaves the rounded x in the low bits
    const __m256 shifted = _mm256_add_ps(x.v, magic);
    const Pack f(_mm256_sub_ps(x.v, _mm256_sub_ps(shifted, magic)));
    Pack p = fma(Pack(1.3333558e-3f), f, Pack(9.6181291e-3f));
    p = fma(p, f, Pack(5.5504109e-2f));
    p = fma(p, f, Pack(2.4022651e-1f));
    p = fma(p, f, Pack(6.9314718e-1f));
    p = fma(p, f, Pack(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return Pack(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), exponent)));
}
DGR_HD Pack exp2(Pack x) { return exp2_bounded(min(max(x, Pack(-125.9f)), Pack(125.9f))); }

// For normal positive x. With x = m 2^e and t = (m - 1) / (m + 1): log m = 2 atanh(t).
DGR_HD Pack log2(Pack x) {
    const __m256i word = _mm256_castps_si256(x.v);
    const __m256i e = _mm256_srai_epi32(_mm256_sub_epi32(word, _mm256_set1_epi32(0x3f3504f3)), 23);
    const Pack m(_mm256_castsi256_ps(_mm256_sub_epi32(word, _mm256_slli_epi32(e, 23))));
    const Pack t = (m - Pack(1.0f)) / (m + Pack(1.0f));
    const Pack t2 = t * t;
    Pack p = fma(Pack(0.3205989f), t2, Pack(0.41219858f));
    p = fma(p, t2, Pack(0.57707802f));
    p = fma(p, t2, Pack(0.96179669f));
    p = fma(p, t2, Pack(2.88539008f));
    return fma(p, t, Pack(_mm256_cvtepi32_ps(e)));
}

using FloatPack = Pack;

}  // namespace dgr::avx2

// SPDX-License-Identifier: Apache-2.0
// Two images -> weighted sums of L1 and structural similarity, and their gradient, in one pass.
//
// Plan: a row of both images comes in; four products of it are blurred along the row into a ring of rows. Four
// rows at a time are blurred across that ring: statistics of four rows of windows, hence the similarity and its
// three derivatives. Those take the same way through a second ring, five rows later, and leave as four rows of
// gradient. Everything in between stays in the cache. A worker owns a range of rows and computes the ten rows
// above and below again; no value depends on where its range begins.
// The maths is in ../../math/similarity.h.
#pragma once

#include <cmath>

#include "../../loss.h"
#include "../../math/similarity.h"
#include "rows_in_flight.h"

namespace dgr::DGR_ISA {

constexpr int kGroup = 4;                 // rows blurred together: a loaded row serves up to four sums
constexpr int kGroupWindow = kGroup + 2 * kRadius;

template <class P>
DGR_HD void blur_along(const Window<P> window, const typename P::Scalar* in, int64_t width,
                       typename P::Scalar* out) {
    for (int64_t x = 0; x < width; x += P::lanes) {
        blurred(window, [&](int i) { return P::load(in + x + i); }).store(out + x);
    }
}

// The fourteen rows of a map that a group of four windows sees.
template <class P>
struct GroupRows {
    const typename P::Scalar* row[kGroupWindow];

    DGR_HD GroupRows(const Ring<P>& ring, int map, int64_t y) {
        for (int r = 0; r < kGroupWindow; ++r) row[r] = ring.row(map, y - kRadius + r);
    }

    DGR_HD void blur_across(const Window<P>& window, int64_t x, P* out) const {
        P sum[kGroup];
        for (int i = 0; i < kGroup; ++i) sum[i] = P(typename P::Scalar(0));
#pragma GCC unroll 14
        for (int r = 0; r < kGroupWindow; ++r) {
            const P value = P::load(row[r] + x);
#pragma GCC unroll 4
            for (int i = 0; i < kGroup; ++i) {
                const int distance = r - i < kRadius ? kRadius - (r - i) : r - i - kRadius;
                if (distance <= kRadius) sum[i] = fma(window.tap[distance], value, sum[i]);
            }
        }
        for (int i = 0; i < kGroup; ++i) out[i] = sum[i];
    }
};

// Streams the rows of one channel.
template <class P>
class LossStream {
    using S = typename P::Scalar;
    enum Product { kImage, kTarget, kSquares, kDifference, kProducts };
    enum Derivative { kToMean, kToSquares, kToDifference, kDerivatives };

  public:
    LossStream(const LossArgs& args, const LossOutputs& out)
        : a_(args), out_(out), width_(args.width), products_(kProducts, width_), weights_(kGroup + 2, width_),
          derivatives_(kDerivatives * kGroup, width_), product_ring_(kProducts, width_),
          derivative_ring_(kDerivatives, width_) {
        for (int64_t x = 0; x < width_; ++x) weights_.row(kOnes)[x] = S(1);
    }

    void run(int64_t channel, int64_t begin, int64_t end) {
        channel_ = channel, begin_ = begin, end_ = end;
        const int64_t halo = out_.v_image ? 2 * kRadius : kRadius;
        for (int64_t y = begin - halo; y < end + halo; y += kGroup) {
            for (int i = 0; i < kGroup; ++i) take_in(y + i);
            if (y + kGroup > begin - halo + 2 * kRadius) compare(y - kRadius);
            if (out_.v_image && y >= begin + 2 * kRadius) give_out(y - 2 * kRadius);
        }
    }

  private:
    static constexpr int kOnes = kGroup, kZeros = kGroup + 1;  // rows of weights_ after those of the group

    bool inside(int64_t y) const { return y >= 0 && y < a_.height; }
    bool owned(int64_t y) const { return y >= begin_ && y < end_; }
    int64_t index(int64_t y) const { return channel_ * a_.height + y; }
    const S* row_of(const void* images, int64_t y) const {
        return static_cast<const S*>(images) + index(y) * width_;
    }
    S* row_of(void* images, int64_t y) const { return static_cast<S*>(images) + index(y) * width_; }

    // Weights of a row, zeros where there is no image: what is blurred there counts for nothing.
    const S* weight_row(int64_t y, int slot) const {
        if (!inside(y)) return weights_.row(kZeros);
        if (!a_.weight) return weights_.row(kOnes);
        __builtin_memcpy(weights_.row(slot), static_cast<const S*>(a_.weight) + y * width_, width_ * sizeof(S));
        return weights_.row(slot);
    }

    // Row y of both images, multiplied and blurred along the row, into the first ring; zeros outside the image.
    void take_in(int64_t y) {
        if (!inside(y)) {
            for (int p = 0; p < kProducts; ++p) __builtin_memset(product_ring_.row(p, y), 0, width_ * sizeof(S));
            return;
        }
        S *image = products_.row(kImage), *target = products_.row(kTarget);
        S *squares = products_.row(kSquares), *difference = products_.row(kDifference);
        __builtin_memcpy(image, row_of(a_.image, y), width_ * sizeof(S));
        __builtin_memcpy(target, row_of(a_.target, y), width_ * sizeof(S));
        const S* weight = weight_row(y, 0);
        P sum(S(0));
        for (int64_t x = 0; x < width_; x += P::lanes) {
            const P i = P::load(image + x), g = P::load(target + x), d = i - g;
            fma(i, i, g * g).store(squares + x);
            (d * d).store(difference + x);
            sum = fma(P::load(weight + x), abs(d), sum);
        }
        if (owned(y)) out_.rows[index(y)].l1 = sum_of_lanes(sum);
        for (int p = 0; p < kProducts; ++p) blur_along(window_, products_.row(p), width_, product_ring_.row(p, y));
    }

    // Similarity of rows y..y+3 and its derivatives; these, blurred along the rows, into the second ring.
    void compare(int64_t y) {
        const GroupRows<P> rows[kProducts] = {{product_ring_, kImage, y}, {product_ring_, kTarget, y},
                                              {product_ring_, kSquares, y}, {product_ring_, kDifference, y}};
        const S* weight[kGroup];
        P sum[kGroup];
        for (int i = 0; i < kGroup; ++i) weight[i] = weight_row(y + i, i), sum[i] = P(S(0));
        const Window<P> window = window_;  // a local copy stays in registers
        for (int64_t x = 0; x < width_; x += P::lanes) {
            P statistic[kProducts][kGroup];
            for (int p = 0; p < kProducts; ++p) rows[p].blur_across(window, x, statistic[p]);
            for (int i = 0; i < kGroup; ++i) {
                const P w = P::load(weight[i] + x);
                const Similarity<P> at = similarity(statistic[kImage][i], statistic[kTarget][i],
                                                    statistic[kSquares][i], statistic[kDifference][i]);
                sum[i] = fma(w, at.value, sum[i]);
                const P v = P(S(a_.v_similarity)) * w;
                (v * at.to_mean).store(derivative_row(kToMean, i) + x);
                (v * at.to_squares).store(derivative_row(kToSquares, i) + x);
                (v * at.to_difference).store(derivative_row(kToDifference, i) + x);
                if (out_.similarity && owned(y + i))
                    store_first(at.value, row_of(out_.similarity, y + i) + x, width_ - x);
            }
        }
        for (int i = 0; i < kGroup; ++i) {
            if (owned(y + i)) out_.rows[index(y + i)].similarity = sum_of_lanes(sum[i]);
            for (int d = 0; d < kDerivatives && out_.v_image; ++d)
                blur_along(window_, derivative_row(d, i), width_, derivative_ring_.row(d, y + i));
        }
    }

    S* derivative_row(int derivative, int i) const { return derivatives_.row(derivative * kGroup + i); }

    // Gradient of rows y..y+3 from the blurred derivatives.
    void give_out(int64_t y) {
        const GroupRows<P> rows[kDerivatives] = {
            {derivative_ring_, kToMean, y}, {derivative_ring_, kToSquares, y}, {derivative_ring_, kToDifference, y}};
        const S* weight[kGroup];
        for (int i = 0; i < kGroup; ++i) weight[i] = weight_row(y + i, i);
        const Window<P> window = window_;
        for (int64_t x = 0; x < width_; x += P::lanes) {
            P v[kDerivatives][kGroup];
            for (int d = 0; d < kDerivatives; ++d) rows[d].blur_across(window, x, v[d]);
            for (int i = 0; i < kGroup && owned(y + i); ++i) {
                const P image = load_first<P>(row_of(a_.image, y + i) + x, width_ - x);
                const P target = load_first<P>(row_of(a_.target, y + i) + x, width_ - x);
                const P slope = P(S(a_.v_l1)) * P::load(weight[i] + x);
                const P v_image =
                    image_gradient(image, target, v[kToMean][i], v[kToSquares][i], v[kToDifference][i], slope);
                store_first(v_image, row_of(out_.v_image, y + i) + x, width_ - x);
            }
        }
    }

    const LossArgs& a_;
    const LossOutputs& out_;
    const int64_t width_;
    const Window<P> window_;
    PaddedRows<P> products_, weights_, derivatives_;
    Ring<P> product_ring_, derivative_ring_;
    int64_t channel_ = 0, begin_ = 0, end_ = 0;
};

// Rows [begin, end) of channels * height.
template <class P>
void compare_images(const LossArgs& args, const LossOutputs& out, int64_t begin, int64_t end) {
    LossStream<P> stream(args, out);
    while (begin < end) {
        const int64_t channel = begin / args.height, first = begin - channel * args.height;
        const int64_t rows = args.height - first < end - begin ? args.height - first : end - begin;
        stream.run(channel, first, first + rows);
        begin += rows;
    }
}

}  // namespace dgr::DGR_ISA

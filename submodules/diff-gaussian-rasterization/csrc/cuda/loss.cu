// SPDX-License-Identifier: Apache-2.0
// Two images -> weighted sums of L1 and structural similarity, and their gradient. A block owns 32 x 16 pixels.
//
// Plan: two kernels, since the gradient blurs derivatives that need blurred images. Each copies its pixels and 5 more
// on every side into shared memory, blurs along rows, then across. Sums of a block are added as a tree, those of all
// blocks by one block in a fixed order.
#include "lane.h"  // first: names the namespace of what follows

#include "../math/similarity.h"
#include "backend.h"

namespace dgr {
namespace {

using namespace lane;

constexpr int kThreads = 256;
constexpr int kWide = 32, kHigh = 16;
constexpr int kOuterWide = kWide + 2 * kRadius, kOuterHigh = kHigh + 2 * kRadius;
constexpr int kTaps = 2 * kRadius + 1;
enum Product { kImage, kTarget, kSquares, kDifference, kProducts };
enum Derivative { kToMean, kToSquares, kToDifference, kDerivatives };

struct Area {
    int64_t width, height, plane;  // plane: first element of the channel
    int64_t x0, y0;

    __device__ Area(const LossArgs& a, int64_t block) : width(a.width), height(a.height) {
        const int64_t across = (width + kWide - 1) / kWide, down = (height + kHigh - 1) / kHigh;
        plane = block / (across * down) * width * height;
        x0 = block % across * kWide, y0 = block / across % down * kHigh;
    }
    __device__ bool inside(int64_t x, int64_t y) const { return x >= 0 && y >= 0 && x < width && y < height; }
    __device__ int64_t at(int64_t x, int64_t y) const { return y * width + x; }
    // Copies pixels with a margin; 0 outside the image.
    template <int N>
    __device__ void load(const float* image, SharedArray<float, N>& to, int first) const {
        for (int i = threadIdx.x; i < kOuterWide * kOuterHigh; i += kThreads) {
            const int64_t x = x0 + i % kOuterWide - kRadius, y = y0 + i / kOuterWide - kRadius;
            to[first + i] = inside(x, y) ? image[plane + at(x, y)] : 0.0f;
        }
    }
};

// The sum over all threads, in thread 0; added as a tree.
__device__ void add_up(SharedArray<double, 2 * kThreads>& sums) {
    for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (int(threadIdx.x) >= half) continue;
        for (int s = 0; s < 2; ++s) {
            const int i = s * kThreads + threadIdx.x;
            sums[i] = sums[i] + sums[i + half];
        }
    }
    __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    compare_kernel(LossArgs a, Window<Lane> window, float v_similarity, float* derivatives, float* similarities,
                   double* partial) {
    constexpr int kOuter = kOuterWide * kOuterHigh, kAlong = kOuterHigh * kWide;
    DGR_SHARED(float, pixels, 2 * kOuter);
    DGR_SHARED(float, along, kProducts * kAlong);
    DGR_SHARED(double, sums, 2 * kThreads);
    const Area area(a, blockIdx.x);
    area.load(static_cast<const float*>(a.image), pixels, 0);
    area.load(static_cast<const float*>(a.target), pixels, kOuter);
    __syncthreads();

    for (int i = threadIdx.x; i < kAlong; i += kThreads) {
        const int first = i / kWide * kOuterWide + i % kWide;
        Lane image[kTaps], target[kTaps];
        DGR_UNROLL for (int k = 0; k < kTaps; ++k)
            image[k] = Lane(pixels[first + k]), target[k] = Lane(pixels[kOuter + first + k]);
        auto put = [&](int product, Lane value) { along[product * kAlong + i] = value.v; };
        put(kImage, blurred(window, [&](int k) { return image[k + kRadius]; }));
        put(kTarget, blurred(window, [&](int k) { return target[k + kRadius]; }));
        put(kSquares, blurred(window, [&](int k) {
                const Lane x = image[k + kRadius], y = target[k + kRadius];
                return fma(x, x, y * y);
            }));
        put(kDifference, blurred(window, [&](int k) {
                const Lane d = image[k + kRadius] - target[k + kRadius];
                return d * d;
            }));
    }
    __syncthreads();

    double l1 = 0, similarity_sum = 0;
    const int column = threadIdx.x % kWide;
    for (int row = threadIdx.x / kWide; row < kHigh; row += kThreads / kWide) {
        const int64_t x = area.x0 + column, y = area.y0 + row;
        if (!area.inside(x, y)) continue;
        auto statistic = [&](int product) {
            return blurred(window, [&](int k) {
                return Lane(along[product * kAlong + (row + kRadius + k) * kWide + column]);
            });
        };
        const Similarity<Lane> s =
            similarity(statistic(kImage), statistic(kTarget), statistic(kSquares), statistic(kDifference));
        const float w = a.weight ? static_cast<const float*>(a.weight)[area.at(x, y)] : 1.0f;
        const int centre = (row + kRadius) * kOuterWide + column + kRadius;
        const int64_t i = area.plane + area.at(x, y);
        l1 += double(w * fabsf(pixels[centre] - pixels[kOuter + centre]));
        similarity_sum += double(w * s.value.v);
        if (similarities) similarities[i] = s.value.v;
        if (!derivatives) continue;
        const int64_t size = a.channels * a.height * a.width;
        const Lane v(v_similarity * w);
        derivatives[kToMean * size + i] = (v * s.to_mean).v;
        derivatives[kToSquares * size + i] = (v * s.to_squares).v;
        derivatives[kToDifference * size + i] = (v * s.to_difference).v;
    }
    sums[threadIdx.x] = l1, sums[kThreads + threadIdx.x] = similarity_sum;
    add_up(sums);
    if (threadIdx.x == 0) partial[2 * blockIdx.x] = sums[0], partial[2 * blockIdx.x + 1] = sums[kThreads];
}

__global__ void __launch_bounds__(kThreads)
    gradient_kernel(LossArgs a, Window<Lane> window, float v_l1, const float* derivatives, float* v_image) {
    constexpr int kOuter = kOuterWide * kOuterHigh, kAlong = kOuterHigh * kWide;
    DGR_SHARED(float, pixels, kDerivatives * kOuter);
    DGR_SHARED(float, along, kDerivatives * kAlong);
    const Area area(a, blockIdx.x);
    const int64_t size = a.channels * a.height * a.width;
    for (int d = 0; d < kDerivatives; ++d) area.load(derivatives + d * size, pixels, d * kOuter);
    __syncthreads();
    for (int i = threadIdx.x; i < kAlong; i += kThreads) {
        const int centre = i / kWide * kOuterWide + i % kWide + kRadius;
        for (int d = 0; d < kDerivatives; ++d)
            along[d * kAlong + i] =
                blurred(window, [&](int k) { return Lane(pixels[d * kOuter + centre + k]); }).v;
    }
    __syncthreads();
    const int column = threadIdx.x % kWide;
    for (int row = threadIdx.x / kWide; row < kHigh; row += kThreads / kWide) {
        const int64_t x = area.x0 + column, y = area.y0 + row;
        if (!area.inside(x, y)) continue;
        auto brought = [&](int d) {
            return blurred(window,
                           [&](int k) { return Lane(along[d * kAlong + (row + kRadius + k) * kWide + column]); });
        };
        const int64_t i = area.plane + area.at(x, y);
        const float w = a.weight ? static_cast<const float*>(a.weight)[area.at(x, y)] : 1.0f;
        const Lane image(static_cast<const float*>(a.image)[i]), target(static_cast<const float*>(a.target)[i]);
        v_image[i] = image_gradient(image, target, brought(kToMean), brought(kToSquares), brought(kToDifference),
                                    Lane(v_l1 * w))
                         .v;
    }
}

__global__ void __launch_bounds__(kThreads) total_kernel(const double* partial, int64_t blocks, double* total) {
    DGR_SHARED(double, sums, 2 * kThreads);
    double l1 = 0, similarity_sum = 0;
    for (int64_t b = threadIdx.x; b < blocks; b += kThreads) l1 += partial[2 * b], similarity_sum += partial[2 * b + 1];
    sums[threadIdx.x] = l1, sums[kThreads + threadIdx.x] = similarity_sum;
    add_up(sums);
    if (threadIdx.x == 0) total[0] = sums[0], total[1] = sums[kThreads];
}

int64_t block_count(const LossArgs& a) {
    return a.channels * blocks_for(a.width, kWide) * blocks_for(a.height, kHigh);
}

}  // namespace

uint64_t loss_scratch(const LossArgs& a) {
    return 2 * sizeof(double) * uint64_t(block_count(a)) +
           kDerivatives * sizeof(float) * uint64_t(a.channels * a.height * a.width);
}

void compare_images(const Launch& launch, const LossArgs& a, void* similarity, void* v_image, double* sums,
                    void* scratch) {
    const int64_t blocks = block_count(a);
    double* partial = static_cast<double*>(scratch);
    float* derivatives = v_image ? reinterpret_cast<float*>(partial + 2 * blocks) : nullptr;
    const Window<Lane> window;
    start(compare_kernel, blocks, kThreads, launch.stream, a, window, float(a.v_similarity), derivatives,
          static_cast<float*>(similarity), partial);
    if (v_image)
        start(gradient_kernel, blocks, kThreads, launch.stream, a, window, float(a.v_l1),
              static_cast<const float*>(derivatives), static_cast<float*>(v_image));
    start(total_kernel, 1, kThreads, launch.stream, static_cast<const double*>(partial), blocks, sums);
    check(cudaGetLastError(), "compare_images");
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// All kernels once, on arrays of exactly the size that the interface asks for: AddressSanitizer sees a step too far.
#include <cstdio>
#include <random>
#include <vector>

#include "cuda/backend.h"

using namespace dgr;

namespace {

std::mt19937 generator(1);

std::vector<float> uniform(size_t size, float low, float high) {
    std::uniform_real_distribution<float> draw(low, high);
    std::vector<float> values(size);
    for (float& v : values) v = draw(generator);
    return values;
}

bool finite(const std::vector<float>& values) {
    for (const float v : values)
        if (!std::isfinite(v)) return false;
    return true;
}

// With arrays for `surplus` entries more than there are; less than nothing leaves some out.
int run(int64_t surplus) {
    constexpr int64_t n = 150;
    constexpr int width = 45, height = 37, channels = 2;
    constexpr size_t pixels = size_t(width) * height;
    const Launch launch;
    Camera camera;
    camera.width = width, camera.height = height, camera.fx = camera.fy = 40, camera.cx = 22, camera.cy = 18;
    for (int i = 0; i < 3; ++i) camera.camera_from_world[5 * i] = 1;
    const double clamp[4] = {-0.8, 0.8, -0.7, 0.7};
    for (int i = 0; i < 4; ++i) camera.clamp[i] = clamp[i];

    std::vector<float> means = uniform(3 * n, -1, 1), quats = uniform(4 * n, -1, 1), scales = uniform(3 * n, -3, -1);
    for (int64_t i = 0; i < n; ++i) means[3 * i + 2] += 2.5f;
    std::vector<float> opacities = uniform(n, -2, 4), dc = uniform(3 * n, -1, 1), rest = uniform(45 * n, -0.1f, 0.1f);
    Gaussians g;
    g.count = n, g.means = means.data(), g.quats = quats.data(), g.scales = scales.data();
    g.opacities = opacities.data(), g.sh_dc = dc.data(), g.sh_rest = rest.data();
    g.rest = 15, g.rest_stride = 45, g.degree = 3, g.raw = true, g.mult = 0.5;

    std::vector<float> splats(16 * n);
    std::vector<int32_t> radii(n);
    project(launch, camera, g, {splats.data(), radii.data()});

    BinArgs bins;
    bins.grid = {width, height, 16, 16}, bins.count = n, bins.splats = splats.data(), bins.radii = radii.data();
    std::vector<uint32_t> order(n), firsts(n + 1), ranges(2 * n), offsets(bins.grid.tiles() + 1);
    std::vector<char> sort_memory(bin_scratch(bins.grid, n, 0));
    bins.order = order.data(), bins.slot_ranges = ranges.data(), bins.sort_scratch = sort_memory.data();
    bins.firsts = firsts.data();
    BinSizes sizes = bin_sort(launch, bins);
    const size_t entries = firsts.back(), capacity = entries + surplus;
    sizes.capacity = capacity;
    std::vector<uint32_t> tiles(capacity), ids(capacity), slots(capacity), entry_ids(capacity), entry_slots(capacity);
    std::vector<uint8_t> masks(capacity), entry_masks(capacity);
    std::vector<char> fill_memory(bin_scratch(bins.grid, n, sizes.capacity));
    bins.emitted_tiles = tiles.data(), bins.emitted_ids = ids.data(), bins.emitted_slots = slots.data();
    bins.emitted_masks = masks.data(), bins.entry_masks = entry_masks.data(), bins.tile_offsets = offsets.data();
    bins.entry_ids = entry_ids.data(), bins.entry_slots = entry_slots.data(), bins.fill_scratch = fill_memory.data();
    bin_fill(launch, bins, sizes);

    const std::vector<float> features = uniform(channels * n, -1, 1), background = uniform(3, 0, 1);
    BlendInputs in;
    in.grid = bins.grid, in.splats = splats.data(), in.features = features.data(), in.channels = channels;
    in.background = background.data(), in.tile_offsets = offsets.data(), in.entry_ids = entry_ids.data();
    in.entry_slots = entry_slots.data(), in.entry_masks = entry_masks.data();
    std::vector<float> image(3 * pixels), alpha(pixels), depth(pixels), inverse(pixels), median(pixels);
    std::vector<float> blended(channels * pixels), stats(3 * capacity);
    const std::vector<uint8_t> marked(pixels, 1);
    blend(launch, in, {image.data(), alpha.data(), depth.data(), inverse.data(), median.data(), blended.data(),
                       marked.data(), stats.data()});

    const std::vector<float> target = uniform(3 * pixels, 0, 1), weight = uniform(pixels, 0, 2);
    std::vector<float> v_image(3 * pixels), similarity(3 * pixels);
    std::vector<double> sums(2);
    const LossArgs loss = {image.data(), target.data(), weight.data(), 3, height, width, 0.8, -0.2};
    std::vector<double> scratch(loss_scratch(loss) / sizeof(double) + 1);
    compare_images(launch, loss, similarity.data(), v_image.data(), sums.data(), scratch.data());

    std::vector<float> slot_rows(16 * capacity), slot_features(channels * capacity);
    std::vector<uint8_t> reached(capacity);
    BlendGradients v;
    v.image = image.data(), v.alpha = alpha.data(), v.depth = depth.data(), v.inverse_depth = inverse.data();
    v.features = blended.data(), v.v_image = v_image.data(), v.v_alpha = alpha.data(), v.v_depth = depth.data();
    v.v_inverse_depth = inverse.data(), v.v_features = blended.data(), v.absolute = true;
    v.slots = slot_rows.data(), v.reached = reached.data(), v.slot_features = slot_features.data();
    blend_adjoint(launch, in, v);

    std::vector<float> v_means(3 * n), v_quats(4 * n), v_scales(3 * n), v_opacities(n), v_dc(3 * n), v_rest(45 * n);
    std::vector<float> v_means2d(4 * n), v_features(channels * n), summed(n), largest(n);
    std::vector<int32_t> counts(n);
    ProjectGradients out;
    out.slots = slot_rows.data(), out.reached = reached.data(), out.slot_ranges = ranges.data();
    out.means = v_means.data(), out.quats = v_quats.data(), out.scales = v_scales.data();
    out.opacities = v_opacities.data(), out.sh_dc = v_dc.data(), out.sh_rest = v_rest.data();
    out.means2d = v_means2d.data();
    project_adjoint(launch, camera, g, splats.data(), radii.data(), out);
    sum_slots(launch, n, ranges.data(), reached.data(), slot_features.data(), channels, v_features.data());
    reduce_stats(launch, n, ranges.data(), stats.data(), summed.data(), largest.data(), counts.data());

    std::vector<float> mean(45 * n), square(45 * n), moved(45 * 5), fresh(45 * 3, 1);
    std::vector<uint8_t> labels(n, 2), moved_labels(5);
    const AdamArgs step = {rest.data(), v_rest.data(), mean.data(), square.data(), nullptr, n, 45, 0.01};
    adam_steps(launch, &step, 1);
    const std::vector<int64_t> rows = {n - 1, 0};
    gather_append(launch, {{rest.data(), fresh.data(), moved.data(), 45, 4, 0},
                           {labels.data(), nullptr, moved_labels.data(), 1, 1, 7}}, rows.data(), 2, 3);

    int64_t drawn = 0;
    for (const int32_t c : counts) drawn += c;
    const bool fine = finite(image) && finite(v_means) && finite(v_rest) && finite(rest) && finite(v_features);
    std::printf("%zu entries, %ld pairs counted, loss sums %g %g\n", entries, long(drawn), sums[0], sums[1]);
    return fine && drawn > 0 && entries > 0 && moved_labels[1] == 2 && moved_labels[4] == 7 ? 0 : 1;
}

}  // namespace

int main() { return run(0) + run(100) + run(-100); }

// SPDX-License-Identifier: Apache-2.0
// Depth order once, then a stable counting sort by tile.
//
// Threads take consecutive parts of the depth order and keep a histogram each; a prefix sum over (tile, part)
// tells every part where its entries of a tile go. The result is that of one thread, whatever their number.
#include <cstring>
#include <memory>
#include <vector>

#include "../splat.h"
#include "backend.h"
#include "thread_pool.h"

namespace dgr {
namespace {

constexpr int kDigitBits = 11;
constexpr uint32_t kDigits = 1u << kDigitBits;

template <class T>
std::unique_ptr<T[]> uninitialised(size_t n) {
    return std::unique_ptr<T[]>(new T[n]);
}

// Positive floats order as their bits do.
template <class S, class Key>
Key depth_key(const S* splat) {
    Key key;
    std::memcpy(&key, splat + kDepth, sizeof key);
    return key;
}

template <class Key>
struct Keyed {
    Key key;
    uint32_t id;
};

// Visible Gaussians in index order; room for their slots, one for each tile of the bounding box. The number of
// tiles stays in slot_ranges until the Gaussian is emitted. `all` is scratch for every Gaussian.
template <class S, class Key>
BinSizes collect_visible(const Launch& launch, const BinArgs& a, int threads, Keyed<Key>* all, Keyed<Key>* out) {
    std::vector<BinSizes> before(threads + 1);
    parallel_for(threads, threads, [&](int t) {
        const Range r = part_of(a.count, threads, t, 1);
        BinSizes mine;
        for (int64_t i = r.begin; i < r.end; ++i) {
            const uint32_t boxes = a.radii[i] > 0 ? uint32_t(launch.kernels.box_tiles(a, i)) : 0;
            a.slot_ranges[2 * i + 1] = boxes;
            if (boxes) all[i] = {depth_key<S, Key>(static_cast<const S*>(a.splats) + kSplatFields * i), uint32_t(i)};
            mine.visible += boxes > 0;
            mine.capacity += boxes;
        }
        before[t + 1] = mine;
    });
    for (int t = 0; t < threads; ++t) {
        before[t + 1].visible += before[t].visible;
        before[t + 1].capacity += before[t].capacity;
    }
    parallel_for(threads, threads, [&](int t) {
        const Range r = part_of(a.count, threads, t, 1);
        Keyed<Key>* next = out + before[t].visible;
        uint32_t slot = uint32_t(before[t].capacity);
        for (int64_t i = r.begin; i < r.end; ++i) {
            a.slot_ranges[2 * i] = slot;
            slot += a.slot_ranges[2 * i + 1];
            if (a.slot_ranges[2 * i + 1]) *next++ = all[i];
        }
    });
    return before[threads];
}

// One stable pass of a radix sort.
template <class Key>
void sort_digit(const Keyed<Key>* in, Keyed<Key>* out, int64_t size, int shift, int threads, uint32_t* counts) {
    auto digit = [shift](const Keyed<Key>& k) { return uint32_t(k.key >> shift) & (kDigits - 1); };
    parallel_for(threads, threads, [&](int t) {
        const Range r = part_of(size, threads, t, 1);
        uint32_t* mine = counts + size_t(t) * kDigits;
        std::memset(mine, 0, kDigits * sizeof *mine);
        for (int64_t i = r.begin; i < r.end; ++i) ++mine[digit(in[i])];
    });
    uint32_t position = 0;
    for (uint32_t d = 0; d < kDigits; ++d)
        for (int t = 0; t < threads; ++t) {
            uint32_t& slot = counts[size_t(t) * kDigits + d];
            const uint32_t n = slot;
            slot = position;
            position += n;
        }
    parallel_for(threads, threads, [&](int t) {
        const Range r = part_of(size, threads, t, 1);
        uint32_t* mine = counts + size_t(t) * kDigits;
        for (int64_t i = r.begin; i < r.end; ++i) out[mine[digit(in[i])]++] = in[i];
    });
}

template <class S, class Key>
BinSizes sort_by_depth(const Launch& launch, const BinArgs& a) {
    const int threads = resolve_threads(launch.threads);
    auto keys = uninitialised<Keyed<Key>>(a.count), other = uninitialised<Keyed<Key>>(a.count);
    const BinSizes sizes = collect_visible<S, Key>(launch, a, threads, other.get(), keys.get());
    auto counts = uninitialised<uint32_t>(size_t(threads) * kDigits);
    for (int shift = 0; shift < int(8 * sizeof(Key)); shift += kDigitBits) {
        sort_digit(keys.get(), other.get(), sizes.visible, shift, threads, counts.get());
        keys.swap(other);
    }
    for (int64_t k = 0; k < sizes.visible; ++k) a.order[k] = keys[k].id;
    return sizes;
}

// Where each part of the depth order emits to: an upper bound, from bounding boxes.
std::vector<uint32_t> first_positions(const BinArgs& a, const BinSizes& sizes, int parts, int threads) {
    std::vector<uint32_t> first(parts + 1, 0);
    if (parts == 1) return first;
    parallel_for(parts, threads, [&](int t) {
        const Range r = part_of(sizes.visible, parts, t, 1);
        uint32_t n = 0;
        for (int64_t k = r.begin; k < r.end; ++k) n += a.slot_ranges[2 * a.order[k] + 1];
        first[t + 1] = n;
    });
    for (int t = 0; t < parts; ++t) first[t + 1] += first[t];
    return first;
}

}  // namespace

BinSizes bin_sort(const Launch& launch, const BinArgs& a) {
    return launch.f64 ? sort_by_depth<double, uint64_t>(launch, a) : sort_by_depth<float, uint32_t>(launch, a);
}

int64_t bin_fill(const Launch& launch, const BinArgs& a, const BinSizes& sizes) {
    const int threads = resolve_threads(launch.threads), tiles = a.grid.tiles();
    const int parts = threads == 1 ? 1 : 4 * threads;  // what is near covers more tiles than what is far
    const std::vector<uint32_t> first = first_positions(a, sizes, parts, threads);
    std::vector<uint32_t> past(parts), counts(size_t(parts) * tiles, 0);
    parallel_for(parts, threads, [&](int t) {
        const Range r = part_of(sizes.visible, parts, t, 1);
        past[t] = launch.kernels.emit(a, r.begin, r.end, first[t], counts.data() + size_t(t) * tiles);
    });
    uint32_t position = 0;
    for (int tile = 0; tile < tiles; ++tile) {
        a.tile_offsets[tile] = position;
        for (int t = 0; t < parts; ++t) {
            uint32_t& slot = counts[size_t(t) * tiles + tile];
            const uint32_t n = slot;
            slot = position;
            position += n;
        }
    }
    a.tile_offsets[tiles] = position;
    parallel_for(parts, threads, [&](int t) {
        uint32_t* next = counts.data() + size_t(t) * tiles;
        for (uint32_t k = first[t]; k < past[t]; ++k) {
            const uint32_t entry = next[a.emitted_tiles[k]]++;
            a.entry_ids[entry] = a.emitted_ids[k];
            static_cast<uint64_t*>(a.entry_masks)[entry] = static_cast<uint64_t*>(a.emitted_masks)[k];
            a.entry_slots[entry] = a.emitted_slots[k];
        }
    });
    return position;
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
// Depth order once, then a stable sort of the entries by tile, with keys as short as the number of tiles allows.
//
// Plan: sort all Gaussians by the bits of their depth (invisible ones last); in that order count the tiles that each
// touches exactly, add up, and list them: tile as key, position as value. Positions are the slots, so a Gaussian's
// slots lie together. A thread lists a small splat by itself; a large one is listed by its whole warp.
//
// The arrays of entries may be longer than their number, which only the card knows: what follows the entries has the
// key kNoTile and sorts last. They may be too short as well: what has no place is left out.
#include "lane.h"  // first: names the namespace of what follows

#include "../math/coverage.h"
#include "backend.h"
#include "sort.h"
#include "tile.h"

namespace dgr {
namespace {

using namespace lane;

constexpr int kThreads = 128;
constexpr int kAlone = 12;  // tiles of a bounding box that one thread looks through by itself
constexpr uint32_t kNoTile = 0xffffffffu;

__global__ void depth_keys_kernel(BinArgs a, uint32_t* keys, uint32_t* ids) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= a.count) return;
    const float depth = static_cast<const float*>(a.splats)[kSplatFields * i + kDepth];
    // Positive floats order as their bits do; rows of invisible Gaussians are undefined.
    keys[i] = a.radii[i] > 0 ? __float_as_uint(depth) : 0xffffffffu;
    ids[i] = uint32_t(i);
}

// Tiles of one splat, row by row through its bounding box.
struct SplatTiles {
    Ellipse<Lane> ellipse;
    TileBox box;

    __device__ SplatTiles(const BinArgs& a, uint32_t id) : SplatTiles(a.grid, row_of(a, id)) {}
    static __device__ const float* row_of(const BinArgs& a, uint32_t id) {
        return static_cast<const float*>(a.splats) + int64_t(kSplatFields) * id;
    }
    __device__ unsigned mask(int k) const {
        return unsigned(covered_blocks(ellipse, float(x(k) * Size::width), float(y(k) * Size::height)));
    }
    __device__ uint32_t tile(const Grid& grid, int k) const { return uint32_t(y(k) * grid_across(grid) + x(k)); }

  private:
    __device__ SplatTiles(const Grid& grid, const float* row) : ellipse(row), box(tile_box<Lane>(grid, row)) {}
    __device__ int x(int k) const { return box.x0 + k % (box.x1 - box.x0 + 1); }
    __device__ int y(int k) const { return box.y0 + k / (box.x1 - box.x0 + 1); }
};

__device__ void emit(const BinArgs& a, uint32_t capacity, uint32_t at, uint32_t id, uint32_t tile, unsigned mask) {
    if (at >= capacity) return;
    a.emitted_tiles[at] = tile;
    a.emitted_ids[at] = id;
    a.emitted_slots[at] = at;
    static_cast<uint8_t*>(a.emitted_masks)[at] = uint8_t(mask);
}

// Counts the tiles of each Gaussian in depth order, or lists them from the position `firsts` on.
template <bool kEmit>
__global__ void __launch_bounds__(kThreads) list_tiles_kernel(BinArgs a, uint32_t* counts, uint32_t capacity) {
    const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const int lane = threadIdx.x % kWarp;
    const bool there = k < a.count;
    const uint32_t id = there ? a.order[k] : 0;
    const bool visible = there && a.radii[id] > 0;
    const uint32_t at = kEmit && there ? a.firsts[k] : 0;
    uint32_t found = 0;
    int boxes = 0;
    if (visible) {
        const SplatTiles tiles(a, id);
        boxes = tiles.box.count();
        for (int j = 0; j < boxes && boxes <= kAlone; ++j) {
            const unsigned mask = tiles.mask(j);
            if (!mask) continue;
            if (kEmit) emit(a, capacity, at + found, id, tiles.tile(a.grid, j), mask);
            ++found;
        }
    }
    unsigned large = __ballot_sync(kAllLanes, boxes > kAlone);
    for (; large; large &= large - 1) {
        const int owner = __ffs(int(large)) - 1;
        const uint32_t own_id = __shfl_sync(kAllLanes, id, owner), own_at = __shfl_sync(kAllLanes, at, owner);
        const SplatTiles tiles(a, own_id);
        const int count = tiles.box.count();
        uint32_t sum = 0;
        for (int first = 0; first < count; first += kWarp) {
            const int j = first + lane;
            const unsigned mask = j < count ? tiles.mask(j) : 0;
            const unsigned hits = __ballot_sync(kAllLanes, mask != 0);
            const uint32_t before = uint32_t(__popc(hits & ((1u << lane) - 1)));
            if (kEmit && mask) emit(a, capacity, own_at + sum + before, own_id, tiles.tile(a.grid, j), mask);
            sum += uint32_t(__popc(hits));
        }
        if (lane == owner) found = sum;
    }
    if (!there) return;
    if (kEmit) {
        const uint32_t room = at < capacity ? capacity - at : 0;
        a.slot_ranges[2 * int64_t(id)] = at, a.slot_ranges[2 * int64_t(id) + 1] = found < room ? found : room;
    } else {
        counts[k] = found;
    }
}

// Entries in order of tiles: their ids and masks, and where each tile begins.
__global__ void gather_kernel(BinArgs a, const uint32_t* tiles, int64_t capacity, uint32_t tile_count) {
    const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= capacity) return;
    const uint32_t tile = tiles[e] == kNoTile ? tile_count : tiles[e];
    const uint32_t next = e ? (tiles[e - 1] == kNoTile ? tile_count : tiles[e - 1]) + 1 : 0;
    for (uint32_t t = next; t <= tile; ++t) a.tile_offsets[t] = uint32_t(e);
    if (e == capacity - 1)
        for (uint32_t t = tile + 1; t <= tile_count; ++t) a.tile_offsets[t] = uint32_t(capacity);
    if (tile == tile_count) return;
    const uint32_t slot = a.entry_slots[e];
    a.entry_ids[e] = a.emitted_ids[slot];
    static_cast<uint8_t*>(a.entry_masks)[e] = static_cast<const uint8_t*>(a.emitted_masks)[slot];
}

// Of the number of a tile, and of one more, which kNoTile is then larger than.
int bits_for(int tiles) {
    int bits = 1;
    while ((int64_t(1) << bits) <= tiles) ++bits;
    return bits;
}

// Parts of one block of memory; without memory it only adds up.
class Carver {
  public:
    explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}
    uint32_t* words(int64_t count) { return reinterpret_cast<uint32_t*>(bytes(4 * uint64_t(count))); }
    void* bytes(uint64_t size) {
        void* part = memory_ ? memory_ + used_ : nullptr;
        used_ += (size + 255) / 256 * 256;
        return part;
    }
    uint64_t used() const { return used_; }

  private:
    char* memory_;
    uint64_t used_ = 0;
};

// What sorting by depth and counting needs; counts has one row more, for the total.
struct SortMemory {
    Carver carver;
    uint32_t *keys, *sorted_keys, *ids, *counts;
    uint64_t cub_bytes;
    void* cub;

    SortMemory(void* memory, int64_t count)
        : carver(memory), keys(carver.words(count)), sorted_keys(carver.words(count)), ids(carver.words(count)),
          counts(carver.words(count + 1)),
          cub_bytes(sort_scratch(count, 32) > scan_scratch(count + 1) ? sort_scratch(count, 32)
                                                                     : scan_scratch(count + 1)),
          cub(carver.bytes(cub_bytes)) {}
};

struct FillMemory {
    Carver carver;
    uint32_t* sorted_tiles;
    uint64_t cub_bytes;
    void* cub;

    FillMemory(void* memory, const Grid& grid, int64_t capacity)
        : carver(memory), sorted_tiles(carver.words(capacity)),
          cub_bytes(sort_scratch(capacity, bits_for(grid.tiles()))), cub(carver.bytes(cub_bytes)) {}
};

}  // namespace

uint64_t bin_scratch(const Grid& grid, int64_t count, int64_t capacity) {
    return capacity ? FillMemory(nullptr, grid, capacity).carver.used() : SortMemory(nullptr, count).carver.used();
}

BinSizes bin_sort(const Launch& launch, const BinArgs& a) {
    const cudaStream_t stream = launch.stream;
    if (a.count == 0) {
        check(cudaMemsetAsync(a.firsts, 0, 4, stream), "bin_sort");
        return {};
    }
    const SortMemory m(a.sort_scratch, a.count);
    const int64_t blocks = blocks_for(a.count, kThreads);
    start(depth_keys_kernel, blocks, kThreads, stream, a, m.keys, m.ids);
    sort_pairs({m.keys, m.sorted_keys, m.ids, a.order, a.count, 32}, m.cub, m.cub_bytes, stream);
    check(cudaMemsetAsync(m.counts + a.count, 0, 4, stream), "bin_sort");
    start(list_tiles_kernel<false>, blocks, kThreads, stream, a, m.counts, 0u);
    exclusive_sum(m.counts, a.firsts, a.count + 1, m.cub, m.cub_bytes, stream);
    check(cudaGetLastError(), "bin_sort");
    return {a.count, 0};
}

int64_t bin_fill(const Launch& launch, const BinArgs& a, const BinSizes& sizes) {
    const cudaStream_t stream = launch.stream;
    const int64_t capacity = sizes.capacity;
    if (a.count == 0 || capacity == 0) {
        check(cudaMemsetAsync(a.tile_offsets, 0, 4 * (size_t(a.grid.tiles()) + 1), stream), "bin_fill");
        check(cudaMemsetAsync(a.slot_ranges, 0, 8 * size_t(a.count), stream), "bin_fill");
        return 0;
    }
    const FillMemory m(a.fill_scratch, a.grid, capacity);
    check(cudaMemsetAsync(a.emitted_tiles, 0xff, 4 * size_t(capacity), stream), "bin_fill");  // kNoTile
    start(list_tiles_kernel<true>, blocks_for(a.count, kThreads), kThreads, stream, a,
          static_cast<uint32_t*>(nullptr), uint32_t(capacity));
    sort_pairs({a.emitted_tiles, m.sorted_tiles, a.emitted_slots, a.entry_slots, capacity, bits_for(a.grid.tiles())},
               m.cub, m.cub_bytes, stream);
    start(gather_kernel, blocks_for(capacity, kThreads), kThreads, stream, a,
          static_cast<const uint32_t*>(m.sorted_tiles), capacity, uint32_t(a.grid.tiles()));
    check(cudaGetLastError(), "bin_fill");
    return capacity;
}

}  // namespace dgr

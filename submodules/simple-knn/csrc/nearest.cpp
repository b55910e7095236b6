// SPDX-License-Identifier: Apache-2.0
// Plan: a balanced kd-tree whose nodes are ranges of one permuted copy of the points. Node i covers a range that
// is halved at its median, its children are 2i+1 and 2i+2, so the tree needs no pointers; each node keeps its
// bounding box. Queries walk the points in tree order: neighbours in the tree share their caches.
// Threads own whole subtrees while building and whole ranges of queries afterwards, and no value depends on which.
#include "nearest.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "best.h"

namespace simple_knn {
namespace {

constexpr int64_t kLeafSize = 12;

using Point = std::array<double, 3>;

struct Box {
    Point low, high;

    double to(const Point& p) const { return squared_distance(low.data(), high.data(), p.data()); }

    int widest_axis() const {
        const Point size = {high[0] - low[0], high[1] - low[1], high[2] - low[2]};
        return int(std::max_element(size.begin(), size.end()) - size.begin());
    }
};

struct Range {
    int64_t begin, end;

    int64_t size() const { return end - begin; }
    int64_t middle() const { return begin + size() / 2; }
};

struct Entry {
    Point point;
    int64_t index;  // in the caller's order
};

class Tree {
  public:
    Tree(const double* points, int64_t count, int threads) : entries_(count) {
        for (int64_t i = 0; i < count; ++i)
            entries_[i] = {{points[3 * i], points[3 * i + 1], points[3 * i + 2]}, i};
        int64_t nodes = 1;
        for (int64_t size = count; size > kLeafSize; size = (size + 1) / 2) nodes = 2 * nodes + 1;
        boxes_.resize(nodes);
        build(0, whole(), threads);
    }

    Range whole() const { return {0, int64_t(entries_.size())}; }
    const Entry& operator[](int64_t place) const { return entries_[place]; }

    // Offer every entry to `best` that may be nearer than its present worst.
    template <class Best>
    void search(const Point& p, Best& best, int64_t node, Range range) const {
        if (range.size() <= kLeafSize) {
            for (int64_t place = range.begin; place < range.end; ++place)
                best.offer(squared_distance(entries_[place].point.data(), p.data()), entries_[place].index);
            return;
        }
        const int64_t left = 2 * node + 1, right = left + 1;
        const Range low = {range.begin, range.middle()}, high = {range.middle(), range.end};
        const double to_left = boxes_[left].to(p), to_right = boxes_[right].to(p);
        const bool left_first = to_left <= to_right;
        if (left_first && to_left < best.worst()) search(p, best, left, low);
        if (to_right < best.worst()) search(p, best, right, high);
        if (!left_first && to_left < best.worst()) search(p, best, left, low);
    }

  private:
    void build(int64_t node, Range range, int threads) {
        const Box box = boxes_[node] = bounds(range);
        if (range.size() <= kLeafSize) return;
        const int axis = box.widest_axis();
        const auto first = entries_.begin();
        std::nth_element(first + range.begin, first + range.middle(), first + range.end,
                         [axis](const Entry& a, const Entry& b) { return a.point[axis] < b.point[axis]; });
        const Range low = {range.begin, range.middle()}, high = {range.middle(), range.end};
        if (threads > 1) {
            std::thread other([=] { build(2 * node + 1, low, threads / 2); });
            build(2 * node + 2, high, threads - threads / 2);
            other.join();
        } else {
            build(2 * node + 1, low, 1);
            build(2 * node + 2, high, 1);
        }
    }

    Box bounds(Range range) const {
        constexpr double inf = std::numeric_limits<double>::infinity();
        Box box = {{inf, inf, inf}, {-inf, -inf, -inf}};
        for (int64_t place = range.begin; place < range.end; ++place)
            for (int axis = 0; axis < 3; ++axis) {
                box.low[axis] = std::min(box.low[axis], entries_[place].point[axis]);
                box.high[axis] = std::max(box.high[axis], entries_[place].point[axis]);
            }
        return box;
    }

    std::vector<Entry> entries_;
    std::vector<Box> boxes_;
};

// Split [0, count) into one contiguous range per thread.
void parallel_ranges(int64_t count, int threads, const std::function<void(Range)>& work) {
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t)
        others.emplace_back(work, Range{count * t / threads, count * (t + 1) / threads});
    work({0, count / threads});
    for (std::thread& other : others) other.join();
}

int usable_threads(int asked, int64_t count) {
    constexpr int64_t worth_a_thread = 4096;  // below that starting a thread costs more than it saves
    const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    return int(std::clamp<int64_t>(asked > 0 ? asked : cores, 1, count / worth_a_thread + 1));
}

}  // namespace

void nearest(const NearestArgs& args, int64_t* indices, double* squared_distances) {
    const int threads = usable_threads(args.threads, args.count);
    const Tree tree(args.points, args.count, threads);
    parallel_ranges(args.count, threads, [&](Range places) {
        for (int64_t place = places.begin; place < places.end; ++place) {
            const Entry& self = tree[place];
            Best<kMostNeighbours> best(args.neighbours, self.index);
            tree.search(self.point, best, 0, tree.whole());
            for (int rank = 0; rank < args.neighbours; ++rank) {
                const int64_t at = self.index * args.neighbours + rank;
                if (indices) indices[at] = best.index(rank);
                if (squared_distances) squared_distances[at] = best.distance(rank);
            }
        }
    });
}

}  // namespace simple_knn

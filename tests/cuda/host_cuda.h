// SPDX-License-Identifier: Apache-2.0
// CUDA's names on the host, so that the kernels run where no card is: blocks one after the other, a fiber for each
// lane, and checks that a card does not make.
//
// A fiber runs until it meets a barrier or a warp operation, and goes on when all lanes that the operation names have
// come to the same one. Reported, each by a std::runtime_error with the names of array and lanes:
//  * shared memory: indices out of bounds, reads of what was never written, and two lanes at one element, one of them
//    writing, with no barrier in between (__syncthreads; within a warp also __syncwarp; shuffles order no memory);
//  * barriers that some lanes never reach;
//  * shuffles and votes whose mask names a lane that does not come to the same operation, leaves out the caller, or
//    whose source is not in the mask.
// Names of CUB that the kernels use are here as well, by the standard library. Global memory is for AddressSanitizer.
#pragma once

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <algorithm>
#include <cmath>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// --- the part of the run-time library that is used: memory is the host's, streams are not --------------------------

using cudaStream_t = void*;
enum cudaError_t {
    cudaSuccess,
    cudaErrorMemoryAllocation,
    cudaErrorNoKernelImageForDevice,
    cudaErrorInvalidDeviceFunction,
    cudaErrorInsufficientDriver,
    cudaErrorNoDevice
};
constexpr int CUDART_VERSION = 0;
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 0, cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "host execution"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}

namespace cub {

struct DeviceRadixSort {
    template <class Key, class Value>
    static cudaError_t SortPairs(void* scratch, size_t& bytes, const Key* keys, Key* sorted_keys, const Value* values,
                                 Value* sorted_values, int count, int begin_bit = 0, int end_bit = 32,
                                 cudaStream_t = nullptr) {
        if (!scratch) return bytes = 16, cudaSuccess;
        const Key mask = Key((uint64_t(1) << end_bit) - (uint64_t(1) << begin_bit));
        std::vector<int> order(count);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return (keys[a] & mask) < (keys[b] & mask); });
        for (int i = 0; i < count; ++i) sorted_keys[i] = keys[order[i]], sorted_values[i] = values[order[i]];
        return cudaSuccess;
    }
};

struct DeviceScan {
    template <class T>
    static cudaError_t ExclusiveSum(void* scratch, size_t& bytes, const T* in, T* out, int count,
                                    cudaStream_t = nullptr) {
        if (!scratch) return bytes = 16, cudaSuccess;
        T sum = 0;
        for (int i = 0; i < count; ++i) {
            const T value = in[i];
            out[i] = sum;
            sum += value;
        }
        return cudaSuccess;
    }
};

}  // namespace cub

// --- bugs that tests plant ------------------------------------------------------------------------------------------

namespace host {
enum Bug { none, missing_barrier, missing_ring_barrier, off_by_one, wrong_mask, early_return };
inline Bug planted = none;
}  // namespace host
#define DGR_PLANTED(bug) (::host::planted == ::host::bug)

// --- lanes ----------------------------------------------------------------------------------------------------------

namespace host {

constexpr int kLanes = 32;
constexpr size_t kStack = 256 << 10;

struct Index {
    unsigned x;
};

enum class Waits { nothing, barrier, operation, never };  // never: the lane has ended

// A barrier or a warp operation as its lane posted it.
struct Post {
    const char* name = "";
    unsigned mask = 0;
    uint64_t value = 0;
    int source = 0;  // lane of the warp that a shuffle reads
    uint64_t result = 0;
};

struct Fiber {
    std::unique_ptr<char[]> stack{new char[kStack]};
    ucontext_t context;
    jmp_buf at;
    bool begun = false;
    void* sanitizer = nullptr;
    Waits waits = Waits::nothing;
    Post post;
    Index thread{0};
};

// One block under way.
struct Machine {
    std::vector<Fiber> fibers;
    std::function<void()> kernel;
    Fiber* current = nullptr;
    ucontext_t scheduler;
    jmp_buf at;
    void* sanitizer = nullptr;
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_size = 0;
    std::string failure;
    Index block{0}, block_size{0}, grid{0};
    uint64_t generation = 0, barriers = 0;  // blocks begun; barriers passed by this one
    std::vector<uint64_t> warp_barriers;    // __syncwarp passed by each warp
};

inline Machine machine;

// Back to the scheduler until it resumes this lane.
inline void suspend() {
    Fiber& f = *machine.current;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(f.waits == Waits::never ? nullptr : &f.sanitizer, machine.scheduler_stack,
                                   machine.scheduler_stack_size);
    swapcontext(&f.context, &machine.scheduler);
    __sanitizer_finish_switch_fiber(f.sanitizer, &machine.scheduler_stack, &machine.scheduler_stack_size);
#else
    if (!_setjmp(f.at)) _longjmp(machine.at, 1);  // no system call, unlike swapcontext
#endif
}

[[noreturn]] inline void fail(const std::string& what) {
    const unsigned lane = machine.current->thread.x;
    machine.failure = what + " (block " + std::to_string(machine.block.x) + ", lane " + std::to_string(lane) + ")";
    machine.current->waits = Waits::never;
    suspend();
    std::abort();
}

inline void begin_lane() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &machine.scheduler_stack, &machine.scheduler_stack_size);
#endif
    machine.kernel();
    machine.current->waits = Waits::never;
    suspend();
}

inline void resume(Fiber& f) {
    machine.current = &f;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&machine.sanitizer, f.stack.get(), kStack);
    swapcontext(&machine.scheduler, &f.context);
    __sanitizer_finish_switch_fiber(machine.sanitizer, nullptr, nullptr);
#else
    if (_setjmp(machine.at)) return;
    if (f.begun) _longjmp(f.at, 1);
    f.begun = true;
    setcontext(&f.context);
#endif
}

inline uint64_t wait_for(Waits kind, const Post& post) {
    Fiber& f = *machine.current;
    f.waits = kind, f.post = post;
    suspend();
    return machine.current->post.result;
}

inline uint64_t warp_operation(const char* name, unsigned mask, uint64_t value, int source) {
    const int lane = int(machine.current->thread.x) % kLanes;
    if (!(mask >> lane & 1)) fail(std::string(name) + ": the caller is not in its own mask");
    return wait_for(Waits::operation, {name, mask, value, source, 0});
}

// --- the scheduler --------------------------------------------------------------------------------------------------

inline std::string describe(const Fiber& f) {
    const char* where = f.waits == Waits::never ? "has ended" : f.post.name;
    return "lane " + std::to_string(f.thread.x) + (f.waits == Waits::never ? " " : " waits at ") + where;
}

// What a lane gets of the posts of its warp.
inline uint64_t outcome(const Post& post, const Fiber* warp, int lanes) {
    const std::string name = post.name;
    if (name == "__shfl_sync") return warp[post.source].post.value;
    uint64_t any = 0, all = 1, ballot = 0;
    for (int i = 0; i < lanes; ++i)
        if (post.mask >> i & 1) {
            const bool set = warp[i].post.value != 0;
            any |= set, all &= set, ballot |= uint64_t(set) << i;
        }
    return name == "__any_sync" ? any : name == "__all_sync" ? all : ballot;
}

// Completes the operation that the first lane of a warp waits at, if all its lanes have come to it.
inline bool complete_operation(Fiber* warp, int lanes, int index) {
    for (int first = 0; first < lanes; ++first) {
        if (warp[first].waits != Waits::operation) continue;
        const Post post = warp[first].post;
        bool ready = true;
        for (int i = 0; i < kLanes && ready; ++i)
            if (post.mask >> i & 1)
                ready = i < lanes && warp[i].waits == Waits::operation && warp[i].post.mask == post.mask &&
                        std::strcmp(warp[i].post.name, post.name) == 0;
        if (!ready) continue;
        for (int i = 0; i < lanes; ++i)
            if (post.mask >> i & 1) warp[i].post.result = outcome(warp[i].post, warp, lanes);
        for (int i = 0; i < lanes; ++i)
            if (post.mask >> i & 1) warp[i].waits = Waits::nothing;
        if (std::strcmp(post.name, "__syncwarp") == 0) ++machine.warp_barriers[index];
        return true;
    }
    return false;
}

inline bool complete_barrier() {
    uint64_t all = 1, any = 0;
    for (const Fiber& f : machine.fibers) {
        if (f.waits != Waits::barrier) return false;
        all &= f.post.value, any |= f.post.value;
    }
    ++machine.barriers;
    for (Fiber& f : machine.fibers) f.waits = Waits::nothing, f.post.result = f.post.value = all | any << 1;
    return true;
}

inline bool step() {
    bool went = false;
    for (Fiber& f : machine.fibers) {
        if (f.waits != Waits::nothing) continue;
        went = true;
        resume(f);
        if (!machine.failure.empty()) throw std::runtime_error(machine.failure);
    }
    const int count = int(machine.fibers.size());
    for (int w = 0; w * kLanes < count; ++w)
        went |= complete_operation(&machine.fibers[w * kLanes], std::min(kLanes, count - w * kLanes), w);
    return complete_barrier() || went;
}

inline void report_stuck() {
    const Fiber *waiting = nullptr, *other = nullptr;
    for (const Fiber& f : machine.fibers)
        if (f.waits == Waits::operation || (!waiting && f.waits == Waits::barrier)) waiting = &f;
    if (!waiting) return;
    for (const Fiber& f : machine.fibers)
        if (f.waits != waiting->waits || std::strcmp(f.post.name, waiting->post.name) != 0 ||
            f.post.mask != waiting->post.mask)
            other = &f;
    throw std::runtime_error("divergence: " + describe(*waiting) + ", but " + (other ? describe(*other) : "no other"));
}

inline void run_block() {
    ++machine.generation;
    machine.barriers = 0;
    const unsigned size = machine.block_size.x;
    machine.warp_barriers.assign((size + kLanes - 1) / kLanes, 0);
    if (machine.fibers.size() != size) machine.fibers = std::vector<Fiber>(size);
    for (unsigned i = 0; i < size; ++i) {
        Fiber& f = machine.fibers[i];
        f.thread = {i}, f.begun = false, f.waits = Waits::nothing;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.get(), f.context.uc_stack.ss_size = kStack, f.context.uc_link = nullptr;
        makecontext(&f.context, begin_lane, 0);
    }
    while (step()) {
    }
    report_stuck();
}

// --- shared memory --------------------------------------------------------------------------------------------------

// When a lane last came to an element.
struct Visit {
    unsigned lane = 0;
    uint64_t barriers = 0, warp_barriers = 0;

    static Visit now() {
        const unsigned lane = machine.current->thread.x;
        return {lane, machine.barriers, machine.warp_barriers[lane / kLanes]};
    }
    // Whether a barrier lies between this and a later visit.
    bool ordered_before(const Visit& later) const {
        if (lane == later.lane || barriers < later.barriers) return true;
        return lane / kLanes == later.lane / kLanes && warp_barriers < later.warp_barriers;
    }
};

struct History {
    uint64_t generation = 0;
    bool written = false;
    Visit write;
    std::vector<Visit> reads;  // since the last barrier
};

template <class T, int N>
class Shared {
  public:
    explicit Shared(const char* name) : name_(name) {}

    class Element {
      public:
        Element(Shared& array, int64_t index) : array_(array), index_(index) {}
        operator T() const { return array_.read(index_); }
        const Element& operator=(T value) const {
            array_.write(index_, value);
            return *this;
        }
        const Element& operator=(const Element& other) const { return *this = T(other); }

      private:
        Shared& array_;
        int64_t index_;
    };

    Element operator[](int64_t index) {
        if (index < 0 || index >= N)
            fail("shared array " + std::string(name_) + "[" + std::to_string(N) + "]: index " + std::to_string(index) +
                 " is out of bounds");
        return {*this, index};
    }

  private:
    History& history(int64_t index) {
        History& h = histories_[index];
        if (h.generation != machine.generation) h = {machine.generation, false, {}, {}};
        return h;
    }
    [[noreturn]] void race(int64_t index, const char* how, const Visit& first) {
        fail("shared array " + std::string(name_) + "[" + std::to_string(index) + "]: " + how + " lane " +
             std::to_string(first.lane) + " with no barrier in between");
    }
    T read(int64_t index) {
        History& h = history(index);
        const Visit now = Visit::now();
        if (!h.written) fail("shared array " + std::string(name_) + "[" + std::to_string(index) + "] is read unwritten");
        if (!h.write.ordered_before(now)) race(index, "read after a write by", h.write);
        if (!h.reads.empty() && h.reads.back().barriers < now.barriers) h.reads.clear();
        if (h.reads.empty() || h.reads.back().lane != now.lane) h.reads.push_back(now);
        return values_[index];
    }
    void write(int64_t index, T value) {
        History& h = history(index);
        const Visit now = Visit::now();
        if (h.written && !h.write.ordered_before(now)) race(index, "written after a write by", h.write);
        for (const Visit& read : h.reads)
            if (!read.ordered_before(now)) race(index, "written after a read by", read);
        h.reads.clear();
        h.written = true, h.write = now;
        values_[index] = value;
    }

    const char* name_;
    T values_[N] = {};
    History histories_[N];
};

}  // namespace host

#define DGR_SHARED(type, name, size) static ::host::Shared<type, (size)> name(#name)

// --- what kernels call ----------------------------------------------------------------------------------------------

#define threadIdx (::host::machine.current->thread)
#define blockIdx (::host::machine.block)
#define blockDim (::host::machine.block_size)
#define gridDim (::host::machine.grid)

inline void __syncthreads() { host::wait_for(host::Waits::barrier, {"__syncthreads", 0, 1, 0, 0}); }
inline int __syncthreads_and(int value) {
    return host::wait_for(host::Waits::barrier, {"__syncthreads_and", 0, uint64_t(value != 0), 0, 0}) & 1;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::warp_operation("__syncwarp", mask, 1, 0); }
inline unsigned __ballot_sync(unsigned mask, int value) {
    return unsigned(host::warp_operation("__ballot_sync", mask, value != 0, 0));
}
inline int __all_sync(unsigned mask, int value) { return int(host::warp_operation("__all_sync", mask, value != 0, 0)); }
inline int __any_sync(unsigned mask, int value) { return int(host::warp_operation("__any_sync", mask, value != 0, 0)); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    source &= host::kLanes - 1;
    if (!(mask >> source & 1)) host::fail("__shfl_sync: the source lane " + std::to_string(source) + " is not in the mask");
    bits = host::warp_operation("__shfl_sync", mask, bits, source);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta) {
    const int lane = int(threadIdx.x) % host::kLanes;
    return __shfl_sync(mask, value, lane < delta ? lane : lane - delta);
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

namespace dgr {

template <class T, int N>
using SharedArray = ::host::Shared<T, N>;

template <class Kernel, class... Arguments>
void start(Kernel kernel, int64_t blocks, int threads, cudaStream_t, Arguments... arguments) {
    host::machine.kernel = [=] { kernel(arguments...); };
    host::machine.block_size = {unsigned(threads)}, host::machine.grid = {unsigned(blocks)};
    host::machine.failure.clear();
    for (int64_t b = 0; b < blocks; ++b) {
        host::machine.block = {unsigned(b)};
        host::run_block();
    }
}

}  // namespace dgr

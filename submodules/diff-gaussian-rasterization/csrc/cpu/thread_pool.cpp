// SPDX-License-Identifier: Apache-2.0
#include "thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace dgr {
namespace {

constexpr int kSpins = 1000;       // some tens of microseconds; to fall asleep and wake takes as long

// Waits for what is about to happen, in vain now and then.
template <class Condition>
void spin_until(const Condition& condition) {
    for (int i = 0; i < kSpins && !condition(); ++i) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

// One parallel_for: indices are handed out by a counter.
struct Job {
    const std::function<void(int)>* task;
    int count;
    int wanted;                    // workers that may still join
    std::atomic<int> next{0};
    std::atomic<int> active{0};    // workers inside; changed under the pool's mutex
    std::exception_ptr error;      // guarded by the pool's mutex
};

class Pool {
public:
    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    void run(Job& job) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (int(workers_.size()) < job.wanted) workers_.emplace_back([this] { serve(); });
            job_ = &job;
            ++posted_;
        }
        wake_.notify_all();
        drain(job);
        std::unique_lock<std::mutex> lock(mutex_);
        job_ = nullptr;  // nobody joins any more
        lock.unlock();
        spin_until([&] { return job.active == 0; });
        lock.lock();
        done_.wait(lock, [&] { return job.active == 0; });
        if (job.error) std::rethrow_exception(job.error);
    }

    std::mutex& turn() { return turn_; }

private:
    void drain(Job& job) {
        try {
            for (int i = job.next++; i < job.count; i = job.next++) (*job.task)(i);
        } catch (...) {
            job.next = job.count;
            std::lock_guard<std::mutex> lock(mutex_);
            if (!job.error) job.error = std::current_exception();
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        const auto called = [this] { return stopping_ || (job_ && job_->wanted > 0); };
        while (true) {
            if (!called()) {       // the stages of a picture follow each other closely
                const int before = posted_;
                lock.unlock();
                spin_until([&] { return posted_ != before; });
                lock.lock();
            }
            wake_.wait(lock, called);
            if (stopping_) return;
            Job& job = *job_;
            --job.wanted;
            ++job.active;
            lock.unlock();
            drain(job);
            lock.lock();
            if (--job.active == 0) done_.notify_all();
        }
    }

    std::mutex turn_;              // one job at a time
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    Job* job_ = nullptr;
    std::atomic<int> posted_{0};   // jobs so far
    bool stopping_ = false;
};

// Threads do not survive fork(): the child gets a pool of its own and leaves the parent's alone.
Pool& pool() {
    static std::mutex guard;
    static Pool* current = nullptr;
    static pid_t owner = 0;
    std::lock_guard<std::mutex> lock(guard);
    if (owner != getpid()) {
        current = new Pool;        // lives as long as the process; joining at exit could outlive statics
        owner = getpid();
    }
    return *current;
}

std::atomic<int> default_threads{0};

}  // namespace

void set_default_threads(int threads) { default_threads = threads; }

int resolve_threads(int threads) {
    if (threads <= 0) threads = default_threads;
    if (threads <= 0) threads = int(std::thread::hardware_concurrency());
    return std::max(1, threads);
}

void parallel_for(int count, int threads, const std::function<void(int)>& task) {
    threads = std::min(resolve_threads(threads), count);
    if (threads <= 1) {
        for (int i = 0; i < count; ++i) task(i);
        return;
    }
    Pool& p = pool();
    std::lock_guard<std::mutex> turn(p.turn());
    Job job;
    job.task = &task;
    job.count = count;
    job.wanted = threads - 1;
    p.run(job);
}

Range part_of(long long size, int parts, int index, int multiple) {
    const long long units = (size + multiple - 1) / multiple;
    auto border = [&](int i) { return std::min(size, units * i / parts * multiple); };
    return {border(index), border(index + 1)};
}

}  // namespace dgr

// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace dgr {
namespace {

struct Candidate {
    const char* name;
    const Kernels& (*kernels)();
    bool runs_here;
};

}  // namespace

const Kernels& choose_kernels(const char* isa, bool f64) {
    if (f64) return portable_kernels_f64();
    if (!isa || !*isa) isa = std::getenv("DGR_ISA");
    const bool any = !isa || !*isa;
#if defined(DGR_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    const Candidate candidates[] = {
        {"avx512", avx512_kernels, avx512}, {"avx2", avx2_kernels, avx2}, {"portable", portable_kernels, true}};
#else
    const Candidate candidates[] = {{"portable", portable_kernels, true}};
#endif
    for (const Candidate& c : candidates)
        if (c.runs_here && (any || std::strcmp(isa, c.name) == 0)) return c.kernels();
    throw std::invalid_argument(std::string("instruction set '") + isa +
                                "' is not available here; leave DGR_ISA empty for the best one");
}

}  // namespace dgr

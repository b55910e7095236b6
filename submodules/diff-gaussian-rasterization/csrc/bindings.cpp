// SPDX-License-Identifier: Apache-2.0
// The module; each file of bind_*.cpp adds its functions.
#include "bindings.h"

#include <cstdlib>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

// A training loop frees and allocates the same tens of megabytes at every step. glibc would give them back to the
// system each time, and fetching them again page by page costs as much as a stage. Only this: up to 256 MB of
// freed memory stays with the process.
void keep_freed_memory() {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

}  // namespace

NB_MODULE(_native, m) {
    // An autograd graph that is still alive at exit holds a few structs: no leak of ours.
    nanobind::set_leak_warnings(false);
    m.doc() = "Native stages of the rasteriser. Pointers are integers; the callers in Python own all memory.";
    keep_freed_memory();
    bind_launch(m);
    bind_rasterizer(m);
    bind_training(m);
}

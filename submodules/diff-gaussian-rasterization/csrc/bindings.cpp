// SPDX-License-Identifier: Apache-2.0
// The module; each file of bind_*.cpp adds its functions.
#include "bindings.h"

NB_MODULE(_native, m) {
    // An autograd graph that is still alive at exit holds a few structs: no leak of ours.
    nanobind::set_leak_warnings(false);
    m.doc() = "Native stages of the rasteriser. Pointers are integers; the callers in Python own all memory.";
    bind_rasterizer(m);
    bind_training(m);
}

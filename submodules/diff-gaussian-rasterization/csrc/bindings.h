// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

// Python hands memory over as integers.
template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

void bind_launch(nanobind::module_& m);      // how a call runs: one of these for each backend
void bind_rasterizer(nanobind::module_& m);  // the stages, compiled for each backend
void bind_training(nanobind::module_& m);    // loss and optimiser: one of these for each backend

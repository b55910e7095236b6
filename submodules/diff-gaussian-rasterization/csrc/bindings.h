// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

void bind_rasterizer(nanobind::module_& m);
void bind_training(nanobind::module_& m);

// SPDX-License-Identifier: Apache-2.0
// What a backend offers for the third stage: entries -> image, its adjoint, and sums over a splat's pixels.
#pragma once

#include <cstdint>

#include "bin.h"

namespace dgr {

struct BlendInputs {
    Grid grid;
    const void* splats = nullptr;               // [N, 16]
    const void* features = nullptr;             // [N, channels] or null
    int channels = 0;
    const void* background = nullptr;           // [3]
    const uint32_t* tile_offsets = nullptr;
    const uint32_t* entry_ids = nullptr;
    const uint32_t* entry_slots = nullptr;
    const void* entry_masks = nullptr;          // words as in BinArgs
};

// Any pointer but image may be null. Where none but alpha and inverse_depth is given beside it, a fast kernel runs.
struct BlendOutputs {
    void* image = nullptr;                      // [3, H, W]
    void* alpha = nullptr;                      // [H, W]
    void* depth = nullptr;                      // [H, W]: sum of weight times depth
    void* inverse_depth = nullptr;              // [H, W]: sum of weight over depth
    void* median_depth = nullptr;               // [H, W]: depth of the splat that crosses transmittance 1/2
    void* features = nullptr;                   // [channels, H, W]
    const uint8_t* count_mask = nullptr;        // [H, W]
    void* stats = nullptr;                      // [slots, kStatFields]; zeroed by the caller
};

struct BlendGradients {
    const void* image = nullptr;                // the forward's outputs
    const void* alpha = nullptr;
    const void* depth = nullptr;
    const void* inverse_depth = nullptr;
    const void* features = nullptr;
    const void* v_image = nullptr;              // [3, H, W] or null
    const void* v_alpha = nullptr;
    const void* v_depth = nullptr;
    const void* v_inverse_depth = nullptr;
    const void* v_features = nullptr;
    bool absolute = false;                      // also sum per-pixel absolute gradients
    void* slots = nullptr;                      // [slots, 16]
    uint8_t* reached = nullptr;                 // [slots]; zeroed by the caller
    void* slot_features = nullptr;              // [slots, channels]; zeroed by the caller
};

}  // namespace dgr

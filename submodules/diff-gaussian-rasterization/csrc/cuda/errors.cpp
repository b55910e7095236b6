// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>
#include <string>

#include "backend.h"

namespace dgr {
namespace {

// What to do, by what the driver says.
const char* remedy(cudaError_t error) {
    switch (error) {
        case cudaErrorMemoryAllocation: return "lower --resolution or the number of Gaussians";
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidDeviceFunction: return "this build is for another card: run make cuda again on this one";
        case cudaErrorInsufficientDriver: return "the NVIDIA driver is missing or too old: update it, or use --backend cpu";
        case cudaErrorNoDevice: return "no card is visible: use --backend cpu";
        default: return "use --backend cpu to go on without the card";
    }
}

}  // namespace

std::pair<int, int> versions() {
    int driver = 0;
    check(cudaDriverGetVersion(&driver), "driver");
    return {CUDART_VERSION, driver};
}

void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(std::string("CUDA, ") + what + ": " + cudaGetErrorString(error) + "; " + remedy(error));
}

}  // namespace dgr

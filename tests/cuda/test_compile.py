# SPDX-License-Identifier: Apache-2.0
"""The CUDA sources compile without a warning or a spill, and touch only memory that is theirs."""

import os
import re

import cuda_build as build
import pytest

ARCHITECTURES = os.environ.get("DGR_CUDA_ARCHITECTURES", "sm_90").split(",")
"""One in `make test`, all that are supported in `make test-cuda`."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("unit", [*build.KERNELS, build.NEAREST], ids=lambda unit: unit.name)
def test_a_source_compiles_without_warnings_or_spills(unit, architecture, tmp_path, record_property):
    if not build.nvcc():
        pytest.skip("no nvcc on this machine (PATH, CUDA_HOME, /usr/local/cuda)")
    said = build.compile_device(unit, architecture, tmp_path)
    for kernel in build.resources(said):
        record_property(kernel.name, str(kernel))
        print(f"{architecture} {unit.name} {kernel}")
        assert kernel.spilled == 0, str(kernel)
        # Two blocks at least: one waits at a barrier while the other works.
        assert kernel.registers * kernel.threads * 2 <= 65536
    assert not re.search(r"\bwarning\b", said)


def test_no_kernel_steps_beyond_an_array(tmp_path):
    if not build.host_compiler():
        pytest.skip("no g++ on this machine: kernels are executed on the host through it")
    said = build.run(build.build_sanitized(tmp_path))
    assert "pairs counted" in said


def test_no_formula_of_the_kernels_is_outside_the_shared_headers():
    """Exponentials, roots and logarithms live in csrc/math and, by name, in the one-lane pack."""
    for unit in build.KERNELS:
        assert not re.search(r"\b(exp2?f?|log2?f?|sqrtf?|rsqrtf?|sinf?|cosf?)\(", unit.read_text()), unit.name

# SPDX-License-Identifier: Apache-2.0
"""Neighbours are exact: they agree with brute force on any cloud, however it is spread."""

import pathlib
import shutil
import subprocess

import pytest
import torch
from simple_knn import along_a_curve, distCUDA2, nearest

CSRC = pathlib.Path(__file__).resolve().parents[1] / "csrc"


def brute_force(points: torch.Tensor, k: int) -> torch.Tensor:
    points = points.double()
    squared = (points[:, None] - points[None]).square().sum(-1)
    squared.fill_diagonal_(torch.inf)
    return squared.sort(dim=1).values[:, :k]


def clouds() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return {
        "uniform": torch.rand(700, 3, generator=rng, dtype=torch.float64),
        "clusters": torch.cat([normal(200, 3) * 10.0**-e + 3 * e for e in range(4)]),
        "heavy tail": normal(500, 3) * (3 * normal(500, 1)).exp(),
        "plane": normal(500, 3) * torch.tensor([1.0, 1.0, 0.0]),
        "line": normal(300, 1) * torch.tensor([[1.0, 2.0, 3.0]]),
        "lattice": torch.cartesian_prod(*[torch.arange(8.0, dtype=torch.float64)] * 3),
        "far from the origin": torch.rand(500, 3, generator=rng, dtype=torch.float64) + 1e7,
    }


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize("k", [1, 3, 10])
def test_distances_are_those_of_brute_force(name, k):
    points = clouds()[name]
    _, squared = nearest(points, k)
    torch.testing.assert_close(squared, brute_force(points, k), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", clouds())
def test_indices_name_points_at_the_stated_distance(name):
    points = clouds()[name]
    indices, squared = nearest(points, 5)
    found = (points[indices] - points[:, None]).square().sum(-1)
    torch.testing.assert_close(found, squared, rtol=1e-14, atol=0)
    assert (indices != torch.arange(len(points))[:, None]).all()
    assert all(len(set(row)) == 5 for row in indices.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_over_three_keeps_the_dtype_of_the_points(dtype):
    points = clouds()["clusters"].to(dtype)
    squared = distCUDA2(points)
    assert squared.dtype == dtype
    torch.testing.assert_close(squared.double(), brute_force(points, 3).mean(1), rtol=1e-6, atol=0)


def test_an_offset_that_float32_holds_exactly_changes_no_distance():
    points = torch.randint(0, 64, (400, 3), generator=torch.Generator().manual_seed(1)).float()
    assert torch.equal(distCUDA2(points + 2.0**23), distCUDA2(points))


def test_scipy_finds_the_same_in_twenty_thousand_points():
    spatial = pytest.importorskip("scipy.spatial")
    points = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    distances, _ = spatial.cKDTree(points.numpy()).query(points.numpy(), k=4)
    expected = torch.from_numpy(distances[:, 1:] ** 2).mean(1)
    torch.testing.assert_close(distCUDA2(points), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_few_points_average_over_the_neighbours_that_exist(count):
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])[:count]
    expected = {0: [], 1: [0.0], 2: [1.0, 1.0], 3: [2.5, 3.0, 4.5], 4: [14 / 3, 16 / 3, 22 / 3, 32 / 3]}[count]
    torch.testing.assert_close(distCUDA2(points), torch.tensor(expected))


def test_duplicates_are_neighbours_at_distance_zero():
    points = torch.cat([torch.zeros(4, 3), torch.tensor([[3.0, 4.0, 0.0]])])
    assert distCUDA2(points).tolist() == [0, 0, 0, 0, 25]


def test_a_hundred_thousand_copies_of_one_point_are_no_special_case():
    assert not distCUDA2(torch.full((100_000, 3), 0.1)).any()


def test_any_number_of_threads_gives_the_same_bits():
    points = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(3))
    points[::5] = points[1::5]  # ties
    alone = nearest(points, 4, threads=1)
    for threads in (2, 3, 4, 7):
        together = nearest(points, 4, threads=threads)
        assert torch.equal(alone[0], together[0])
        assert torch.equal(alone[1], together[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_coordinates_that_are_not_finite_are_refused(bad):
    points = torch.zeros(10, 3)
    points[7, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        distCUDA2(points)


def test_wrong_shapes_and_counts_are_refused():
    with pytest.raises(ValueError, match=r"expected \[N, 3\], got \[5, 2\]"):
        distCUDA2(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="expected 0 to 4 for 5 points, got 5"):
        nearest(torch.zeros(5, 3), 5)


def test_strided_points_are_read_as_they_are_meant():
    wide = torch.randn(300, 6, generator=torch.Generator().manual_seed(4))
    assert torch.equal(distCUDA2(wide[:, ::2]), distCUDA2(wide[:, ::2].clone()))


def test_a_leaf_that_requires_grad_is_accepted():
    assert not distCUDA2(torch.zeros(5, 3, requires_grad=True)).requires_grad


def test_a_curve_goes_through_each_eighth_of_a_cube_before_the_next():
    points = torch.cartesian_prod(*[torch.arange(4.0)] * 3)[torch.randperm(64)]
    ordered = points[along_a_curve(points).argsort()]
    eighths = (ordered // 2).view(8, 8, 3)
    assert (eighths == eighths[:, :1]).all()
    assert along_a_curve(torch.ones(3, 3)).unique().numel() == 1 and len(along_a_curve(torch.zeros(0, 3))) == 0


def test_the_name_that_3dgs_code_imports_is_there():
    from simple_knn import _C

    assert _C.distCUDA2 is distCUDA2


@pytest.mark.parametrize("compiler", ["g++", "clang++", "aarch64-linux-gnu-g++"])
def test_the_core_compiles_without_warnings(compiler, tmp_path):
    names = [compiler, *(f"{compiler}-{version}" for version in range(20, 10, -1))]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no {compiler} on this machine")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-c", "-o", str(tmp_path / "nearest.o")]
    subprocess.run([found, *flags, str(CSRC / "nearest.cpp")], check=True)

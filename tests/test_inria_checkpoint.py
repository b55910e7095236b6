# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the INRIA family are read without unpickling anything, and what else they hold does not matter."""

import io
import zipfile

import numpy as np
import pytest
import tiny
import torch
from splat_tools import gaussians
from torch import nn

from phases.start import _starting_gaussians
from scene.formats import checkpoint
from scene.splat_files import holds_splats, read_splats
from scene.splats import SplatArrays
from utils import checkpoint as ours
from utils.errors import UserError

ORDER = ("means", "sh_dc", "sh_rest", "log_scales", "quats", "logit_opacities")
GROUPS = ("xyz", "f_dc", "f_rest", "scaling", "rotation", "opacity")


def captured(splats: SplatArrays, *, dtype=torch.float32, extent=2.5, degree=3) -> tuple:
    """The tuple of 12 as such trainers make it, after a step of their optimiser."""
    leaves = [nn.Parameter(torch.from_numpy(splats.parameters()[name]).to(dtype)) for name in ORDER]
    optimizer = torch.optim.Adam(
        [{"params": [leaf], "lr": 0.01 * extent, "name": name} for leaf, name in zip(leaves, GROUPS, strict=True)],
        lr=0.0,
        eps=1e-15,
    )
    for leaf in leaves:
        leaf.grad = torch.zeros_like(leaf) if dtype != torch.float16 else None  # their epsilon is 0 in half precision
    optimizer.step()
    count = len(splats)
    statistics = (torch.zeros(count), torch.zeros(count, 1), torch.zeros(count, 1))
    return (degree, *leaves, *statistics, optimizer.state_dict(), extent)


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("extent", [2.5, np.float32(2.5), np.float64(2.5)], ids=["float", "float32", "float64"])
def test_the_tuple_of_twelve_is_read_also_with_the_numpy_numbers_that_torch_refuses(tmp_path, extent):
    splats = gaussians(30)
    torch.save((captured(splats, extent=extent), 30_000), tmp_path / "chkpnt30000.pth")
    if not isinstance(extent, float) or isinstance(extent, np.floating):
        with pytest.raises(Exception, match="Weights only load failed"):
            torch.load(tmp_path / "chkpnt30000.pth", weights_only=True)
    back = read_splats(tmp_path / "chkpnt30000.pth")
    assert holds_splats(tmp_path / "chkpnt30000.pth")
    assert back.sh_degree == 3
    for name, array in splats.parameters().items():
        np.testing.assert_array_equal(back.parameters()[name], array)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_every_pickle_protocol_and_precision_is_read(tmp_path, protocol, dtype):
    splats = gaussians(5, degree=1)
    torch.save((captured(splats, dtype=dtype, degree=1), 7), tmp_path / "a.pth", pickle_protocol=protocol)
    back = read_splats(tmp_path / "a.pth")
    np.testing.assert_allclose(back.means, splats.means, rtol=2e-3)
    assert back.sh_rest.shape == (5, 3, 3)


def test_views_of_larger_tensors_are_read_as_what_they_show(tmp_path):
    splats = gaussians(6)
    whole = torch.arange(60.0).reshape(3, 20)
    values = list(captured(splats))
    values[1] = whole[:, 4:10].T
    torch.save((tuple(values), 1), tmp_path / "a.pth")
    np.testing.assert_array_equal(read_splats(tmp_path / "a.pth").means, whole[:, 4:10].T)


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_in_it_is_ever_called(tmp_path):
    trap = tmp_path / "trap"
    values = list(captured(gaussians(4)))
    values[10] = Touch(trap)
    torch.save((tuple(values), 1), tmp_path / "a.pth")
    assert len(read_splats(tmp_path / "a.pth")) == 4
    values[1] = Touch(trap)
    torch.save((tuple(values), 1), tmp_path / "b.pth")
    refused(tmp_path / "b.pth")
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"a": torch.zeros(3)}},
        (1, 2, 3),
        torch.zeros(3),
        ((3, *[torch.zeros(4)] * 6), 5),
        ((3, *[None] * 6), 5),
        [],
        ((3, torch.zeros(2, 3)), 1),
    ],
)
def test_another_layout_is_refused_and_the_ply_is_named(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert "point_cloud.ply" in refused(tmp_path / "a.pth")


def test_a_checkpoint_of_ours_is_refused(tmp_path):
    path = ours.save(tmp_path, 5, {"means": torch.zeros(3, 3)})
    assert "another layout" in refused(path)


def test_the_old_kind_of_file_and_compressed_archives_are_refused(tmp_path):
    torch.save((captured(gaussians(3)), 1), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="no known format"):
        read_splats(tmp_path / "a.pth")
    torch.save((captured(gaussians(3)), 1), tmp_path / "b.pth")
    stream = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "b.pth") as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (tmp_path / "c.pth").write_bytes(stream.getvalue())
    refused(tmp_path / "c.pth")


def test_a_tensor_that_repeats_its_numbers_without_end_is_refused(tmp_path):
    values = list(captured(gaussians(3)))
    values[1] = torch.zeros(1, 3).expand(1 << 40, 3)
    torch.save((tuple(values), 1), tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", ["pth", "spz", "sog", "glb", "splat"])
def test_a_run_can_start_from_it(tmp_path, suffix):
    from scene.export import export, html

    path = tmp_path / f"start.{suffix}"
    splats = gaussians(40, degree=2)
    if suffix == "pth":
        torch.save((captured(splats, degree=2), 1), path)
    else:
        export(path, splats, suffix, start=html.Start(np.zeros(3), np.ones(3), np.ones(3)), title="")
    settings = tiny.config(tmp_path / "run", init=str(path))
    cpu = torch.device("cpu")
    made = _starting_gaussians(settings, tiny.scene(4), np.zeros(3), torch.Generator().manual_seed(0), cpu)
    assert len(made) == 40
    assert made.sh_rest.shape == (40, 15, 3)
    assert (np.sort(made.means.detach().numpy(), 0) - np.sort(splats.means, 0)).max() < 1e-3

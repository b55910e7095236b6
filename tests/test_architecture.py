# SPDX-License-Identifier: Apache-2.0
"""The parts know only whom they may know, carry a licence, and hold no code that runs data or names one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NATIVE = {"diff_gaussian_rasterization", "simple_knn", "fused_ssim"}
ENTRY_POINTS = {"train", "render", "metrics"}
COMMANDS = {"utils/export.py"}  # an entry point too: `python -m utils.export` is the name that users expect
MAY_IMPORT = {
    "phases": {"arguments", "gaussian_renderer", "scene", "vlm", "utils"} | NATIVE,
    "gaussian_renderer": {"scene", "utils", "diff_gaussian_rasterization"},
    "vlm": {"arguments", "utils"},
    "scene": {"arguments", "utils", "simple_knn", "diff_gaussian_rasterization"},  # a camera is a View there
    "arguments": {"utils"},  # the error that users see
    "utils": {"arguments"},  # a run folder keeps the settings
    "diff_gaussian_rasterization": set(),
    "simple_knn": set(),
}
OURS = set(MAY_IMPORT) | ENTRY_POINTS | NATIVE | {"tests", "tools", "benchmarks", "scripts", "demo"}
SOURCES = {".py", ".cpp", ".h", ".cu", ".cuh"}


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository, new ones included, ignored ones not."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout, so there is no list of its files")
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def imports(path: Path) -> set[str]:
    """Top-level names of what a file imports, wherever in the file, relative imports aside."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def package_folder(package: str) -> Path:
    inside = list(ROOT.glob(f"submodules/*/{package}"))
    return inside[0] if inside else ROOT / package


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_whom_it_may(package):
    files = sorted(package_folder(package).rglob("*.py"))
    assert files, f"package {package} is gone"
    strangers = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in files
        if str(path.relative_to(ROOT)) not in COMMANDS
        and (bad := imports(path) & (OURS - {package}) - MAY_IMPORT[package])
    }
    assert not strangers


def test_nobody_imports_an_entry_point():
    importers = [
        str(path.relative_to(ROOT))
        for package in MAY_IMPORT
        for path in package_folder(package).rglob("*.py")
        if imports(path) & ENTRY_POINTS
    ]
    assert not importers


def test_nobody_imports_a_command_that_lies_in_a_package():
    commands = {name.removesuffix(".py").replace("/", ".") for name in COMMANDS}
    for path in tracked(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = ".".join(filter(None, [path.parent.name if node.level else "", node.module]))
                named = {module} | {f"{module}.{alias.name}" for alias in node.names}
            else:
                named = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            assert not named & commands, path


def test_transformers_is_imported_by_the_vlm_package_alone():
    importers = {
        path.relative_to(ROOT).parts[0]
        for path in tracked(".py")
        if "transformers" in imports(path) and path.relative_to(ROOT).parts[0] not in {"tests", "tools"}
    }
    assert importers <= {"vlm"}


def test_no_part_of_the_product_needs_torchvision_or_mitsuba():
    unwanted = {"torchvision", "torchmetrics", "kornia", "lpips"}
    allowed_here = {"demo/make_scene.py"}
    probes = {"vlm/qwen.py"}  # looks whether an installed torchvision is broken, to hide it from transformers
    for path in tracked(".py"):
        name = str(path.relative_to(ROOT))
        assert not imports(path) & unwanted or name.startswith("tests/") or name in probes, name
        assert "mitsuba" not in imports(path) or name in allowed_here, name


def test_the_maths_headers_know_neither_torch_nor_cuda_nor_python():
    for path in ROOT.glob("submodules/*/csrc/**/*"):
        if path.suffix not in {".h", ".cpp"}:
            continue
        included = set(re.findall(r'#include\s*[<"]([^>"]+)[>"]', path.read_text()))
        assert not [name for name in included if name.startswith(("torch/", "ATen/", "c10/"))], path
        if not path.name.startswith("bind"):
            assert not [name for name in included if name.startswith(("nanobind", "Python.h", "pybind"))], path
        if path.parent.name == "math":
            assert not [name for name in included if "cuda" in name], path


def test_every_source_file_names_its_licence():
    bare = []
    for path in tracked(*SOURCES):
        sign = "# " if path.suffix == ".py" else "// "
        head = path.read_text().splitlines()[:2]
        if head and sign + "SPDX-License-Identifier: Apache-2.0" not in head:
            bare.append(str(path.relative_to(ROOT)))
    assert not bare


def test_the_licence_is_apache_and_the_notice_names_the_copyleft_dependency():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    notice = (ROOT / "NOTICE").read_text()
    for name in (ROOT / "requirements.txt").read_text().split("\n")[1:]:
        assert name in notice
    assert "GPL-3.0" in notice


def test_no_file_names_a_folder_of_one_machine():
    pattern = re.compile(r"(?<![\w.])/(?:home|root|work|Users|opt)/\w")
    text = {".py", ".md", ".txt", ".toml", ".yml", ".sh", ".cpp", ".h", ".html", ".json", ""}
    found = {}
    for path in tracked():
        if path.suffix in text and path != Path(__file__).resolve():
            for number, line in enumerate(path.read_text(errors="ignore").splitlines(), 1):
                if pattern.search(line):
                    found[f"{path.relative_to(ROOT)}:{number}"] = line.strip()[:80]
    assert not found


def test_data_never_becomes_code():
    """No eval, exec, pickle or unsafe torch.load; one tool reads a foreign pickle with an arrays-only reader."""
    found = []
    for path in tracked(".py"):
        name = str(path.relative_to(ROOT))
        if name.startswith(("tests/", "submodules/")) and "/tests/" in f"/{name}":
            continue
        if (
            imports(path) & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
            and name != "tools/fetch_lpips.py"
        ):
            found.append(f"{name}: pickle")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called in {"eval", "exec", "compile"}:
                found.append(f"{name}:{node.lineno}: {called}")
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if called == "torch.load" and keywords.get("weights_only") != "True":
                found.append(f"{name}:{node.lineno}: torch.load without weights_only=True")
            if called.endswith("np.load") and keywords.get("allow_pickle") == "True":
                found.append(f"{name}:{node.lineno}: allow_pickle")
            if keywords.get("shell") == "True":
                found.append(f"{name}:{node.lineno}: shell=True")
    assert not found


def test_the_only_code_of_plyfile_lies_behind_one_module():
    importers = [str(p.relative_to(ROOT)) for p in tracked(".py") if "plyfile" in imports(p)]
    outside = [name for name in importers if not name.startswith(("tests/", "scene/"))]
    assert not outside
    assert len([name for name in importers if name.startswith("scene/")]) <= 1


def test_train_py_stays_short():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 150


def test_large_files_do_not_slip_in():
    heavy = {str(p.relative_to(ROOT)): size for p in tracked() if (size := p.stat().st_size) > 4_000_000}
    assert not heavy

# SPDX-License-Identifier: Apache-2.0
"""Set-up knows what is missing, which torch to take, and when there is nothing to do."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup_environment():
    spec = importlib.util.spec_from_file_location("setup_environment", ROOT / "scripts" / "setup_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(version: str, *requires: str) -> dict:
    return {"install": [{"metadata": {"name": "torch", "version": version, "requires_dist": list(requires)}}]}


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def without_python_variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in {"PYTHON", "MAKEFLAGS", "MAKELEVEL"}}


# --- which torch ---


def test_a_local_cpu_build_brings_no_cuda(setup_environment):
    assert not setup_environment.brings_cuda(report("2.13.0+cpu", "filelock", "sympy"))


@pytest.mark.parametrize(
    "requirement", ['nvidia-cudnn-cu13==9.20; platform_system == "Linux"', "cuda-toolkit[cublas]==13.0"]
)
def test_a_build_that_requires_nvidia_packages_brings_cuda(setup_environment, requirement):
    assert setup_environment.brings_cuda(report("2.13.0", "filelock", requirement))


def test_a_build_without_nvidia_packages_is_a_cpu_build(setup_environment):
    assert not setup_environment.brings_cuda(report("2.13.0", "filelock"))


@pytest.mark.parametrize(
    ("driver", "cuda", "index", "from_index", "said"),
    [
        (True, True, True, False, "NVIDIA driver found"),
        (False, False, False, False, "CPU build"),
        (False, True, True, True, "CPU build"),
        (False, True, False, False, "cannot be reached"),
    ],
)
def test_torch_comes_from_the_cpu_index_only_where_that_saves_cuda(
    setup_environment, driver, cuda, index, from_index, said
):
    arguments, message = setup_environment.torch_source(driver=driver, cuda_by_default=cuda, index_reachable=index)
    assert (setup_environment.CPU_INDEX in arguments) == from_index
    assert said in message and "\n" not in message


def test_a_server_that_is_not_there_is_not_reachable(setup_environment):
    assert not setup_environment.reachable("http://127.0.0.1:9/", seconds=2)
    assert not setup_environment.reachable("not an address")


# --- pins ---


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_every_pin_is_a_plain_version():
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), (
            f"{name}=={version}: local tags, hashes and ranges do not travel"
        )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_that_is_required_is_pinned():
    """Also what the requirements themselves require, on this machine."""
    pinned = {normal(name) for name in pins()}
    wanted = []
    for file in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / file).read_text().splitlines()
        wanted += [line for line in lines if line and not line.startswith(("#", "-"))]
    from packaging.requirements import Requirement

    seen = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = normal(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        try:
            further = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # another platform's
        if name.startswith(("nvidia-", "cuda-")) or name == "triton":
            continue  # pinned by torch itself
        assert name in pinned, f"{name} is installed without a pin"
        wanted += further
    assert len(seen) > 30


def test_what_builds_require_is_pinned():
    pinned = {normal(name) for name in pins()}
    for file in ROOT.glob("submodules/*/pyproject.toml"):
        for requirement in tomllib.loads(file.read_text())["build-system"]["requires"]:
            assert normal(re.split(r"[<>=!~\[ ]", requirement)[0]) in pinned
    assert {"cmake", "ninja"} <= pinned


def test_native_builds_require_no_torch():
    files = list(ROOT.glob("submodules/*/pyproject.toml"))
    assert len(files) >= 2
    for file in files:
        assert not [r for r in tomllib.loads(file.read_text())["build-system"]["requires"] if r.startswith("torch")]


def test_no_display_opencv_and_no_torchvision():
    names = {normal(name) for name in pins()}
    assert "opencv-python-headless" in names
    assert not names & {"opencv-python", "opencv-contrib-python", "torchvision", "mitsuba"}


def test_conda_users_get_the_same_lists():
    text = (ROOT / "environment.yml").read_text()
    for wanted in ("-c constraints.txt", "-r requirements-dev.txt"):
        assert wanted in text
    for package in ROOT.glob("submodules/*/pyproject.toml"):
        assert f"./{package.parent.relative_to(ROOT)}" in text


def test_isolation_is_never_switched_off():
    for name in ("Makefile", "scripts/setup_environment.py", "environment.yml", ".ci/run"):
        assert "no-build-isolation" not in (ROOT / name).read_text()


# --- stamps ---


def test_the_hash_follows_contents_and_names_but_not_times(setup_environment, tmp_path):
    a, b = tmp_path / "a.cpp", tmp_path / "b.cpp"
    a.write_text("1")
    b.write_text("2")
    before = setup_environment.content_hash([a, b])
    os.utime(a, (1, 1))
    assert setup_environment.content_hash([b, a]) == before
    b.write_text("3")
    assert setup_environment.content_hash([a, b]) != before
    b.write_text("2")
    b = b.rename(tmp_path / "c.cpp")
    assert setup_environment.content_hash([a, b]) != before


def test_native_sources_leave_out_tests_and_build_products(setup_environment, tmp_path):
    for name in ("csrc/x.cpp", "pkg/__init__.py", "CMakeLists.txt", "tests/test_x.py", "build/x.o", "pkg/_C.so",
                 "pkg/__pycache__/x.pyc"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {str(p.relative_to(tmp_path)) for p in setup_environment.native_sources(tmp_path)}
    assert found == {"csrc/x.cpp", "pkg/__init__.py", "CMakeLists.txt"}


def test_a_step_that_was_finished_is_not_repeated(setup_environment, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_environment, "compiler", lambda: "c++")
    done = []
    kind = setup_environment.Environment
    monkeypatch.setattr(kind, "create", lambda self: self.folder.mkdir(exist_ok=True))
    monkeypatch.setattr(kind, "install_packages", lambda self: done.append("packages"))
    monkeypatch.setattr(kind, "install_native", lambda self, package, architectures="": done.append(package.name))
    environment = kind(tmp_path / "env")
    setup_environment.set_up(environment)
    assert done == ["packages", *setup_environment.NATIVE]
    setup_environment.set_up(environment)
    assert len(done) == 3
    (environment.folder / "stamp-simple-knn").write_text("of other sources")
    setup_environment.set_up(environment)
    assert done[3:] == ["simple-knn"]


def test_a_failed_step_is_not_stamped(setup_environment, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_environment, "compiler", lambda: "c++")
    kind = setup_environment.Environment
    monkeypatch.setattr(kind, "create", lambda self: self.folder.mkdir(exist_ok=True))

    def fail(self):
        raise setup_environment.SetupError("no network")

    monkeypatch.setattr(kind, "install_packages", fail)
    environment = kind(tmp_path / "env")
    with pytest.raises(setup_environment.SetupError):
        setup_environment.set_up(environment)
    assert not list(environment.folder.glob("stamp-*"))


# --- clear words ---


def test_no_compiler_is_one_clear_line(setup_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(setup_environment.SetupError, match="install g\\+\\+ or clang") as error:
        setup_environment.compiler()
    assert "\n" not in str(error.value)


def test_a_compiler_that_knows_no_cpp17_is_not_taken(setup_environment, tmp_path, monkeypatch):
    script(tmp_path / "c++", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(setup_environment.SetupError, match="C\\+\\+17"):
        setup_environment.compiler()


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed here")
def test_an_old_python_is_one_clear_line_and_exit_code_2(tmp_path):
    script(tmp_path / "oldpython", "exit 1")
    done = subprocess.run(
        ["make", "setup", f"PYTHON={tmp_path / 'oldpython'}"],
        cwd=ROOT, capture_output=True, text=True, env=without_python_variables(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    first = done.stderr.splitlines()[0]
    assert "3.11" in first and "oldpython" in first
    assert "Traceback" not in done.stderr


def test_the_script_itself_refuses_an_old_python(setup_environment, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert setup_environment.main() == 2
    assert "3.11 or newer" in capsys.readouterr().err


def test_ci_runs_the_tests():
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert "set -euo pipefail" in ci.read_text() and "make test" in ci.read_text()


# --- the CUDA backend ---


@pytest.fixture
def machine(setup_environment, monkeypatch):
    """nvcc and a card of 9.0; a test takes away what it likes."""
    monkeypatch.setattr(setup_environment, "nvcc", lambda: "/usr/bin/nvcc")
    monkeypatch.setattr(setup_environment, "card_architectures", lambda: "90")
    monkeypatch.setattr(setup_environment, "has_nvidia_driver", lambda: True)
    return monkeypatch


def test_the_cuda_backend_is_built_for_the_card_that_is_found(setup_environment, machine):
    assert setup_environment.cuda_architectures(None, "")[0] == "90"
    assert setup_environment.cuda_architectures("75;120", "")[0] == "75;120"
    assert setup_environment.cuda_architectures(None, "75;120")[0] == "75;120"
    assert setup_environment.cuda_architectures("", "75;120")[0] == "90"


def test_without_a_card_or_nvcc_the_cpu_backend_is_built_and_a_line_says_so(setup_environment, machine):
    machine.setattr(setup_environment, "card_architectures", lambda: "")
    assert setup_environment.cuda_architectures(None, "") == (
        "", "no CUDA backend: no card answers nvidia-smi; `make cuda` builds it",
    )  # fmt: skip
    machine.setattr(setup_environment, "nvcc", lambda: None)
    assert setup_environment.cuda_architectures(None, "90")[1] == "no CUDA backend: no nvcc; `make cuda` builds it"
    machine.setattr(setup_environment, "has_nvidia_driver", lambda: False)
    assert setup_environment.cuda_architectures(None, "") == ("", "no CUDA backend: no NVIDIA driver")


@pytest.mark.parametrize(
    ("asked", "gone", "words"),
    [("", "nvcc", "install the CUDA toolkit"), ("", "card_architectures", "CUDA_ARCHS=75;90"), ("9.0", "", "give")],
)
def test_make_cuda_says_what_is_missing(setup_environment, machine, asked, gone, words):
    if gone:
        machine.setattr(setup_environment, gone, lambda: "" if gone == "card_architectures" else None)
    with pytest.raises(setup_environment.SetupError, match=words) as error:
        setup_environment.cuda_architectures(asked, "")
    assert "\n" not in str(error.value)


def test_cards_are_those_that_nvidia_smi_names(setup_environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    script(tmp_path / "nvidia-smi", "printf '9.0\\n8.6\\n9.0\\n12.0\\n'")
    assert setup_environment.card_architectures() == "86;90;120"
    script(tmp_path / "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert setup_environment.card_architectures() == ""


def test_a_cuda_build_that_fails_by_itself_leaves_the_cpu_backend(setup_environment, machine, tmp_path):
    machine.setattr(setup_environment, "compiler", lambda: "c++")
    built = []
    kind = setup_environment.Environment

    def install(self, package, architectures=""):
        if architectures:
            raise setup_environment.SetupError("nvcc fell over")
        built.append(package.name)

    machine.setattr(kind, "create", lambda self: self.folder.mkdir(exist_ok=True))
    machine.setattr(kind, "install_packages", lambda self: None)
    machine.setattr(kind, "install_native", install)
    setup_environment.set_up(kind(tmp_path / "env"))
    assert built == list(setup_environment.NATIVE)
    with pytest.raises(setup_environment.SetupError, match="fell over"):
        setup_environment.set_up(kind(tmp_path / "other"), "90")

# SPDX-License-Identifier: Apache-2.0
"""Sets up everything in .venv: pinned packages and the two native packages. A second call does nothing.

    python scripts/setup_environment.py [--cuda [ARCHITECTURES]]

Where an NVIDIA card and nvcc are found, the CUDA backend is built for that card. --cuda insists on it, also without a
card when the architectures are given, such as 75;90; later set-ups keep to them.

Needs Python >= 3.11 with its headers and a C++17 compiler, and nothing else; only the standard library is used here.
What was done is stamped with a hash of what it was done from (requirements, pins, native sources), so a change in
any of them is noticed and only that part is repeated. Native packages are built by pip in isolation.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ("diff-gaussian-rasterization", "simple-knn")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST_PYTHON = (3, 11)


class SetupError(Exception):
    """What is missing and what to do, in one line."""


# --- what the machine offers -------------------------------------------------------------------------------------


def compiler() -> str:
    """The C++ compiler that builds take: $CXX, else the first of c++, g++ and clang++ that knows C++17.

    Raises:
        SetupError: there is none.
    """
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if shutil.which(name.split()[0]) and knows_cpp17(name):
            return name
    raise SetupError("no C++17 compiler found: install g++ or clang++ (Debian, Ubuntu: apt install g++), or set CXX")


def knows_cpp17(name: str) -> bool:
    """Whether a compiler takes a C++17 program with the standard library."""
    program = "#include <optional>\n#include <thread>\nint main() { if (std::optional<int> x{1}; x) return 0; }\n"
    done = subprocess.run(
        [*name.split(), "-std=c++17", "-fsyntax-only", "-x", "c++", "-"],
        input=program, text=True, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def check_python() -> None:
    """Whether this interpreter can build extensions and make environments.

    Raises:
        SetupError: its headers or its venv module are missing.
    """
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise SetupError(
            f"{sys.executable} has no Python.h: install its headers (Debian, Ubuntu: apt install python3-dev)"
        )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise SetupError("python has no ensurepip: install it (Debian, Ubuntu: apt install python3-venv)") from None


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is loaded, also inside WSL."""
    return any(Path(p).exists() for p in ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"))


def nvcc() -> str | None:
    """The CUDA compiler: of $CUDA_HOME, on PATH, or where it is usually installed."""
    home = os.environ.get("CUDA_HOME")
    folders = [f"{home}/bin" if home else "", os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(filter(None, folders)))


def card_architectures() -> str:
    """Compute capabilities of the cards, such as `90` or `75;86`; empty where nvidia-smi finds none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            text=True, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.findall(r"^(\d+)\.(\d)$", done.stdout, re.MULTILINE) if done.returncode == 0 else []
    return ";".join(map(str, sorted({10 * int(major) + int(minor) for major, minor in found})))


def cuda_architectures(asked: str | None, remembered: str) -> tuple[str, str]:
    """For which architectures the CUDA backend is built, none if empty, and what to tell the user.

    Args:
        asked: What --cuda names; empty for the card's, None when it was not given.
        remembered: What it named in an earlier set-up.

    Raises:
        SetupError: it was asked for and cannot be built.
    """
    compiler = nvcc()
    card = card_architectures() if compiler else ""
    wanted = asked or (remembered if asked is None else "") or card
    if asked is not None:
        if compiler is None:
            raise SetupError("no nvcc found (PATH, CUDA_HOME, /usr/local/cuda): install the CUDA toolkit, 12 or newer")
        if not wanted:
            raise SetupError("nvidia-smi finds no card: say for which ones to build, such as CUDA_ARCHS=75;90")
        if not re.fullmatch(r"\d{2,3}(;\d{2,3})*", wanted):
            raise SetupError(f"CUDA_ARCHS={wanted}: give compute capabilities without the point, such as 90 or 75;90")
    if compiler and wanted:
        return wanted, f"CUDA backend for sm_{wanted} with {compiler}"
    if has_nvidia_driver():
        return "", f"no CUDA backend: {'no card answers nvidia-smi' if compiler else 'no nvcc'}; `make cuda` builds it"
    return "", "no CUDA backend: no NVIDIA driver"


# --- which torch -------------------------------------------------------------------------------------------------


def brings_cuda(report: dict) -> bool:
    """Whether pip's report of a dry run says that torch comes with CUDA libraries.

    CPU builds carry the local version `+cpu`; the registry's CUDA build for Linux requires `nvidia-*` or `cuda-*`.
    """
    for item in report.get("install", ()):
        metadata = item["metadata"]
        if metadata["name"].lower() == "torch":
            if metadata["version"].endswith("+cpu"):
                return False
            return any(r.lower().startswith(("nvidia-", "cuda-")) for r in metadata.get("requires_dist", ()))
    return False


def torch_source(*, driver: bool, cuda_by_default: bool, index_reachable: bool) -> tuple[list[str], str]:
    """Where torch is taken from: further arguments of pip, and what to tell the user."""
    if driver:
        return [], "NVIDIA driver found: torch as the registry has it"
    if not cuda_by_default:
        return [], "no NVIDIA driver: the registry's torch, which is a CPU build here"
    if index_reachable:
        return ["--index-url", CPU_INDEX], f"no NVIDIA driver: CPU build of torch from {CPU_INDEX}"
    return [], (
        f"no NVIDIA driver, but {CPU_INDEX} cannot be reached: "
        "the registry's torch with its CUDA libraries (large; it runs on the CPU)"
    )


def reachable(url: str, seconds: float = 8.0) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


# --- steps -------------------------------------------------------------------------------------------------------


def content_hash(files: Iterable[Path], *extra: str) -> str:
    """Hash of names and contents, whatever the order and the times of the files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for text in extra:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def native_sources(package: Path) -> list[Path]:
    """The files a native package is built from: not its tests, nor what builds and caches leave."""
    skipped = {"tests", "build", "dist", "__pycache__", ".pytest_cache"}
    return [
        path
        for path in package.rglob("*")
        if path.is_file()
        and not skipped.intersection(path.relative_to(package).parts)
        and path.suffix not in {".so", ".pyc"}
        and ".egg-info" not in str(path)
    ]


def pinned(name: str) -> str:
    """The requirement of constraints.txt for a package, such as `torch==2.13.0`."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.split("==")[0].lower() == name:
            return line.strip()
    raise SetupError(f"constraints.txt: no line for {name}")


class Environment:
    """The virtual environment and the stamps of what was installed into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"

    def run(self, *arguments: str, what: str) -> str:
        """Python with arguments, silently; its output.

        Raises:
            SetupError: it failed. All it said is in .venv/setup.log, its last lines go to stderr.
        """
        env = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
        done = subprocess.run([str(self.python), *arguments], text=True, capture_output=True, check=False, env=env)
        if done.returncode:
            log = self.folder / "setup.log"
            log.write_text(done.stdout + done.stderr)
            print("\n".join((done.stdout + done.stderr).splitlines()[-25:]), file=sys.stderr)
            raise SetupError(f"{what} failed; the whole output is in {log}")
        return done.stdout

    def pip(self, *arguments: str, what: str) -> str:
        """`pip install` under the pins, also of what builds need."""
        pins = str(ROOT / "constraints.txt")
        return self.run("-m", "pip", "install", "--quiet", "-c", pins, *arguments, what=what)

    def version(self, name: str) -> str:
        """Of an installed package; empty for none."""
        program = f"import importlib.metadata as m; print(*(d.version for d in m.distributions(name={name!r})))"
        return self.run("-c", program, what=f"looking for {name}")

    def stamped(self, name: str, fingerprint: str) -> bool:
        """Whether a step was finished from the same sources."""
        stamp = self.folder / f"stamp-{name}"
        return stamp.is_file() and stamp.read_text() == fingerprint

    def stamp(self, name: str, fingerprint: str) -> None:
        """Remember that a step is finished."""
        (self.folder / f"stamp-{name}").write_text(fingerprint)

    def create(self) -> None:
        """A fresh environment unless there is a working one of the same Python."""
        version = ".".join(map(str, sys.version_info[:3]))
        try:
            found = self.run("-c", "import platform, pip; print(platform.python_version())", what="check")
        except (OSError, SetupError):
            found = ""
        if found.strip() != version:
            say(f"creating {self.folder.name} with Python {version}")
            venv.create(self.folder, with_pip=True, clear=True)

    def install_packages(self) -> None:
        """Pinned packages from the registry, torch first."""
        self.pip(pinned("pip"), what="upgrading pip")
        wanted = pinned("torch")
        driver = has_nvidia_driver()
        if driver and "+cpu" in self.version("torch"):  # of the same number, so pip would keep it
            self.run("-m", "pip", "uninstall", "--yes", "--quiet", "torch", what="removing the CPU build of torch")
        cuda = False
        if not driver and sys.platform == "linux":
            with tempfile.TemporaryDirectory() as folder:
                report = Path(folder) / "report.json"
                dry = ("--dry-run", "--no-deps", "--ignore-installed", "--report", str(report))
                self.pip(*dry, wanted, what="looking for torch")
                cuda = brings_cuda(json.loads(report.read_text()))
        arguments, message = torch_source(
            driver=driver, cuda_by_default=cuda, index_reachable=cuda and reachable(f"{CPU_INDEX}/torch/")
        )
        say(message)
        if arguments:
            self.pip("--no-deps", *arguments, wanted, what="installing torch")
        say("installing pinned packages (minutes the first time)")
        self.pip("-r", str(ROOT / "requirements-dev.txt"), what="installing packages")
        program = (
            "import torch; v = torch.version; print(v.__version__, f'with CUDA {v.cuda}' if v.cuda else '(CPU build)')"
        )
        say("torch " + self.run("-c", program, what="importing torch").strip())

    @property
    def cuda_file(self) -> Path:
        """Holds the architectures that `--cuda` named."""
        return self.folder / "cuda-architectures"

    def install_native(self, package: Path, architectures: str = "") -> None:
        """Build one native package and install it, in isolation; with a CUDA backend if there are architectures."""
        say(f"building {package.name} with {compiler()}")
        defines = {"CUDA_ARCHS": architectures, "CMAKE_CUDA_COMPILER": nvcc()} if architectures else {}
        settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()]
        # a copy, so that no build folder appears among the sources and an edit during the build does no harm
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / package.name
            shutil.copytree(package, copy, ignore=shutil.ignore_patterns("build", "dist", "__pycache__", "*.so"))
            pins = str(ROOT / "constraints.txt")
            self.pip(
                "--no-deps", "--force-reinstall", "--no-cache-dir", "--build-constraint", pins, *settings, str(copy),
                what=f"building {package.name}",
            )  # fmt: skip


def say(text: str) -> None:
    """A line of progress."""
    print(f"set-up: {text}", flush=True)


def set_up(environment: Environment, asked: str | None = None) -> None:
    """Every step that is not done yet; `asked` are the architectures of --cuda, None without it."""
    began, did = time.monotonic(), False
    machine = (sys.version, platform.machine())
    lists = [ROOT / name for name in ("requirements.txt", "requirements-dev.txt", "constraints.txt")]
    remembered = environment.cuda_file.read_text() if environment.cuda_file.is_file() else ""
    architectures, message = cuda_architectures(asked, remembered)
    fingerprint = content_hash(lists, *machine, *(["NVIDIA driver"] if has_nvidia_driver() else []))
    if not environment.stamped("packages", fingerprint):
        check_python()
        compiler()  # before minutes are spent on downloads
        environment.create()
        environment.install_packages()
        environment.stamp("packages", fingerprint)
        did = True
    for name in NATIVE:
        package = ROOT / "submodules" / name
        fingerprint = content_hash(native_sources(package), *machine, os.environ.get("CXX", "")) + architectures
        if not environment.stamped(name, fingerprint):
            check_python()
            compiler()
            if name == NATIVE[0]:
                say(message)
            try:
                environment.install_native(package, architectures)
            except SetupError:
                if asked is not None or not architectures:
                    raise
                say("the CUDA backend could not be built: going on without it; `make cuda` tries again")
                environment.install_native(package)
            environment.stamp(name, fingerprint)
            did = True
    if asked is not None:
        environment.cuda_file.write_text(architectures)
    if did:
        say(f"done in {time.monotonic() - began:.0f} s")


def main(arguments: Sequence[str] = ()) -> int:
    """Set up, one call at a time; 2 when something is missing."""
    asked = None
    if arguments:
        if arguments[0] != "--cuda" or len(arguments) > 2:
            print(f"set-up: {' '.join(arguments)}: only --cuda [ARCHITECTURES] is known", file=sys.stderr)
            return 2
        asked = "".join(arguments[1:])
    if sys.version_info < OLDEST_PYTHON:
        print(f"set-up: Python {platform.python_version()} is too old; 3.11 or newer is needed", file=sys.stderr)
        return 2
    try:
        with (ROOT / ".setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            set_up(Environment(ROOT / ".venv"), asked)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

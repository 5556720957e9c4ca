"""The generated parts of docs/scaling.md: each stands between two comments, and is what the results say."""

import re
from collections.abc import Mapping
from typing import Any

from scale import report
from scale.assumptions import Assumptions

PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Document = Mapping[str, Any]


def parts(constants: Document, results: Document) -> dict[str, str]:
    """The generated parts, by name.

    Args:
        constants: what `measure` has written.
        results: what `simulate` and `check` have written.
    """
    scenarios, check = results["simulation"]["scenarios"], results["check"]
    return {
        "rules": report.rules(constants, Assumptions()),
        "machine": report.machine_line(constants),
        "constants": report.measured(constants).markdown(),
        "fleets": report.fleets(scenarios).markdown(),
        "targets": report.targets(results["simulation"]["targets"]).markdown(),
        "propagation": report.propagation(scenarios).markdown(),
        "egress": report.traffic(scenarios).markdown(),
        "redis": report.servers(scenarios).markdown(),
        "herds": report.herds(scenarios).markdown(),
        "assumptions": report.assumed(results["simulation"]["assumptions"]).markdown(),
        "checked-on": report.machine_line(check),
        "checked-fan-outs": report.checked_fan_outs(check).markdown(),
        "checked-herds": report.checked_herds(check).markdown(),
    }


def filled(text: str, generated: Mapping[str, str]) -> str:
    """A page with its generated parts as they are to be.

    Raises:
        KeyError: the page has a part that nothing generates.
    """
    return PART.sub(lambda match: f"{match[1]}{generated[match['name']]}\n{match[3]}", text)

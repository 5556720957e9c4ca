"""What people read: tables of what was measured, of what follows, and of how far that is right."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table

from scale.assumptions import Assumptions
from scale.capacity import egress, one_core, redis
from scale.constants import Constants
from scale.fleet import Fleet

Document = Mapping[str, Any]

TARGETS = (50, 100, 250)
"""Milliseconds within which the last SDK has a change, for rules of thumb."""

NETWORKS = {
    "none": "no network",
    "zone": "one zone",
    "region": "one region",
    "world": "the world",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As docs have it."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def rich(self, title: str) -> rich.table.Table:
        """As a terminal has it."""
        table = rich.table.Table(*self.columns, title=title)
        for row in self.rows:
            table.add_row(*row)
        return table


def number(value: float) -> str:
    """A figure as people say it: three digits, thousands apart; below one, two."""
    if value == 0:
        return "0"
    if abs(value) < 1:
        return f"{value:.2g}"
    rounded = float(f"{value:.3g}")
    places = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}"


def size(value: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000:
            return f"{number(value)} {unit}"
        value /= 1000
    return f"{number(value)} TB"


def seconds(value: float | None) -> str:
    """A time, or that it never came."""
    return "not within two minutes" if value is None else f"{value:.2f} s"


# -- what was measured ------------------------------------------------------------------------------------------------


def machine_line(document: Document) -> str:
    """What it was measured on, in a sentence."""
    on = document["machine"]
    when = document.get("measured") or document["checked"]
    return (
        f"Measured {when}, on {on['cores']} cores of {on['cpu']}, {on['memory_gb']} GB, Linux {on['kernel']}, "
        f"Python {on['python']}, flagrelay {on['flagrelay']}; before the run others kept {_percent(on['busy_before'])} "
        f"of it busy."
    )


def measured(document: Document) -> Table:
    """The constants."""
    constants = Constants.of(document)
    rows = [
        ("a change until its first stream has it", _spread(constants.first_ms, "ms")),
        ("each stream from there on", _spread(constants.per_stream_us, "µs")),
        ("CPU of a delivery", f"{number(constants.delivery_cpu_us)} µs"),
        ("CPU of a heartbeat", f"{number(constants.heartbeat_cpu_us)} µs"),
        *(
            (f"new streams per second and core, {what}", _spread(constants.joins_per_second[kind]))
            for kind, what in (("current", "lacking nothing"), ("full", f"a `put` of {_put(constants)} each"))
        ),
        ("CPU of a new stream that lacks nothing", f"{number(constants.join_cpu_us['current'])} µs"),
        ("memory of a process without streams", size(constants.relay_bytes)),
        ("memory of an idle stream", size(constants.stream_bytes)),
        ("the kernel's memory of an idle stream", size(constants.stream_kernel_bytes)),
        *_redis_rows(document, constants),
        *(row for name, sizes in constants.sizes.items() for row in _size_rows(name, sizes.patch, sizes.heartbeat)),
    ]
    return Table(["what", "measured: median (lowest to highest)"], rows)


def _put(constants: Constants) -> str:
    return size(constants.sizes["plain"].full)


def _spread(values: Sequence[float] | Any, unit: str = "") -> str:  # noqa: ANN401 - numpy's arrays are sequences too
    ordered = sorted(float(value) for value in values)
    unit = f" {unit}" if unit else ""
    return f"{number(ordered[len(ordered) // 2])}{unit} ({number(ordered[0])} to {number(ordered[-1])})"


def _redis_rows(document: Document, constants: Constants) -> Iterator[tuple[str, str]]:
    measured_with = document["redis"]
    yield "Redis", measured_with["version"]
    for count, each in measured_with["subscribers"].items():
        last, cpu = each["last_ms"]["median"], each["cpu_us"]
        yield f"a message to the last of {count} subscribers", f"{number(last)} ms, {number(cpu)} µs of Redis's CPU"
    yield (
        "one subscriber more",
        (f"{number(constants.redis_subscriber_us)} µs, {number(constants.redis_subscriber_cpu_us)} µs of Redis's CPU"),
    )
    yield "later from a replica", f"{number(constants.replica_hop_ms)} ms"
    yield "Redis's CPU of a change that is written", f"{number(constants.redis_change_cpu_us)} µs"
    yield (
        "Redis's CPU each time that a process compares where it stands",
        f"{number(constants.redis_verification_cpu_us)} µs",
    )


def _size_rows(name: str, patch: int, heartbeat: int) -> Iterator[tuple[str, str]]:
    yield f"a patch, a heartbeat ({name})", f"{patch} bytes, {heartbeat} bytes"


# -- what follows -----------------------------------------------------------------------------------------------------


def rules(document: Document, assumptions: Assumptions) -> str:
    """Rules of thumb, as a list."""
    constants = Constants.of(document)
    core = one_core(constants, assumptions)
    sizes = constants.sizes["plain"]
    million = Fleet(1_000_000, 1, assumptions.workers)
    day = egress(million, sizes, constants, assumptions)
    subscribers = Fleet(0, assumptions.subscribers_per_redis)
    load = redis(subscribers, constants, assumptions)
    within = ", ".join(f"{number(core[f'streams_within_{each}_ms'])} within {each} ms" for each in TARGETS)
    return f"""\
- **Streams per core** are a matter of how soon the last of them is to have a change: {within}, networks excluded, in 95
  of 100 rounds.
- **A core writes** {number(core["deliveries_per_second"])} changes to streams per second, and opens
  {number(core["joins_per_second"])} streams per second.
- **Idle streams cost memory**, and hardly CPU: {size(constants.stream_bytes)} in the relay and
  {size(constants.stream_kernel_bytes)} in the kernel for each, beside {size(constants.relay_bytes)} for each process.
  With 10,000 streams, heartbeats take {_percent(core["heartbeats_of_10000"])} of a core, and streams that end and begin
  anew {_percent(core["lifetimes_of_10000"])}.
- **Redis notices processes, and not SDKs**: {assumptions.subscribers_per_redis} that subscribe to one server make the
  last of them {number(load["last_turn_ms"])} ms later than the first, take {number(load["cpu_ms_per_change"])} ms of
  Redis's CPU for each change, and {_percent(load["core_for_verifying"])} of a core all the time.
- **Egress is mostly heartbeats**: a million SDKs get {size(day["day_bytes"])} a day with
  {assumptions.changes_per_day} changes, {_percent(day["heartbeats_share"])} of it heartbeats. A change is
  {size(day["change_bytes"])} at once; a relay of {assumptions.workers} cores sends it at
  {number(day["peak_mbit_per_relay"])} Mbit/s."""


def _percent(share: float) -> str:
    return f"{number(share * 100)} %"


def fleets(scenarios: Sequence[Document]) -> Table:
    """A row for each number of SDKs."""
    columns = [
        "SDKs",
        "relays",
        "streams per process",
        "last SDK, no network",
        "the same without a tenth of the relays",
        "memory per relay",
        "a change",
        "a day",
        "Redis servers",
    ]
    rows = []
    for each in scenarios:
        fleet, memory, plain = each["fleet"], each["memory"], each["egress"]["plain"]
        rows.append(
            [
                f"{each['sdks']:,}",
                f"{fleet['relays']:,}",
                f"{fleet['streams_per_process']:,}",
                f"{number(each['propagation_ms']['none']['percentiles']['last'])} ms",
                f"{number(each['last_after_loss_ms'])} ms",
                size(memory["processes"] + memory["kernel"]),
                size(plain["change_bytes"]),
                size(plain["day_bytes"]),
                _servers(fleet["replicas"]),
            ]
        )
    return Table(columns, rows)


def _servers(replicas: int) -> str:
    return f"1, and {replicas} replicas" if replicas else "1"


def targets(rows: Sequence[Document]) -> Table:
    """How many relays for which target."""
    wanted = list(dict.fromkeys((each["share"], each["target_ms"]) for each in rows))
    relays = {(each["sdks"], each["share"], each["target_ms"]): each["relays"] for each in rows}
    columns = ["SDKs", *(f"{_who(share)} within {target:g} ms" for share, target in wanted)]
    body = [
        [f"{sdks:,}", *(f"{relays[sdks, *each]:,} relays" for each in wanted)]
        for sdks in dict.fromkeys(each["sdks"] for each in rows)
    ]
    return Table(columns, body)


def _who(share: float) -> str:
    return "the last" if share == 1 else f"{share * 100:g} %"


def propagation(scenarios: Sequence[Document]) -> Table:
    """Percentiles for each number of SDKs over each network."""
    names = ["first", "p50", "p99", "p99.9", "last"]
    rows = []
    for each in scenarios:
        for network, times in each["propagation_ms"].items():
            shown = [f"{number(times['percentiles'][name])}" for name in names]
            last = f"{number(times['lowest']['last'])} to {number(times['highest']['last'])}"
            rows.append([f"{each['sdks']:,}", NETWORKS.get(network, network), *shown, last])
    return Table(["SDKs", "relay to SDK", *names, "last, from change to change"], rows)


def traffic(scenarios: Sequence[Document]) -> Table:
    """Egress, for each number of SDKs, plain and with compression where there is any."""
    rows = []
    for each in scenarios:
        for name, bytes_ in each["egress"].items():
            rows.append(
                [
                    f"{each['sdks']:,}",
                    name,
                    size(bytes_["change_bytes"]),
                    size(bytes_["day_bytes"]),
                    _percent(bytes_["heartbeats_share"]),
                    f"{number(bytes_['mean_mbit_per_relay'])} Mbit/s",
                    f"{number(bytes_['peak_mbit_per_relay'])} Mbit/s",
                ]
            )
    columns = ["SDKs", "", "a change", "a day", "of it heartbeats", "a relay, on average", "a relay, during a change"]
    return Table(columns, rows)


def servers(scenarios: Sequence[Document]) -> Table:
    """Redis: as the fleet has it, and with one server alone."""
    rows = []
    for each in scenarios:
        kinds = {_servers(each["fleet"]["replicas"]): each["redis"], "1": each["redis_alone"]}
        for name, load in kinds.items():
            rows.append(
                [
                    f"{each['sdks']:,}",
                    name,
                    f"{load['subscribers']:,}",
                    f"{number(load['last_turn_ms'])} ms",
                    f"{number(load['cpu_ms_per_change'])} ms",
                    _percent(load["core_for_verifying"]),
                ]
            )
    columns = ["SDKs", "servers", "subscribers of one", "its last one", "its CPU for a change", "its CPU all the time"]
    return Table(columns, rows)


def herds(scenarios: Sequence[Document]) -> Table:
    """Losing relays: how SDKs come back."""
    rows = []
    for each in scenarios:
        for name, herd in each["herds"].items():
            waits = [wait for _, wait in herd["changes"]]
            rows.append(
                [
                    f"{each['sdks']:,}",
                    f"{each['fleet']['lost']} of {each['fleet']['relays']}",
                    name,
                    seconds(herd["half"]),
                    seconds(herd["most"]),
                    seconds(herd["all"]),
                    f"{herd['longest_queue']:,}",
                    f"{herd['refused']:,}",
                    f"{number(herd['quiet_ms'])} ms",
                    f"{number(max(waits))} ms",
                ]
            )
    columns = [
        "SDKs",
        "relays lost",
        "how",
        "half back",
        "99 %",
        "all",
        "longest queue of a process",
        "refused",
        "last SDK has a change, quiet",
        "meanwhile, at worst",
    ]
    return Table(columns, rows)


def assumed(document: Document) -> Table:
    """What was not measured."""
    rows = [
        *([f"relay to SDK, {NETWORKS.get(name, name)}", _network(each)] for name, each in document["networks"].items()),
        ["Redis to relay", _network(document["redis_network"])],
        ["processes of a relay", str(document["workers"])],
        ["target", f"the last SDK within {document['target_ms']:g} ms, networks to SDKs excluded"],
        ["lost", f"{document['lost'] * 100:g} % of the relays, and at least one"],
        ["changes", f"{document['changes_per_day']} a day"],
        ["subscribers of one Redis server", f"{document['subscribers_per_redis']} at most"],
        ["around each packet", f"{document['packet_bytes']} bytes for {document['segment_bytes']} at most"],
        ["`retry`, `heartbeat_interval`, `stream_lifetime`", ", ".join(f"{each:g} s" for each in document["times"])],
    ]
    return Table(["what", "assumed"], rows)


def _network(each: Document) -> str:
    loss = f", {number(each['loss'] * 100)} % lost and sent again after {each['again_ms']:g} ms" if each["loss"] else ""
    return f"median {each['median_ms']:g} ms, p99 {each['p99_ms']:g} ms{loss}"


# -- how far it is right ----------------------------------------------------------------------------------------------


def checked_fan_outs(check: Document) -> Table:
    """A change to everybody: predicted, measured, and the ratio."""
    rows = []
    for each in check["fan_outs"]:
        predicted, seen = each["predicted_ms"], each["measured_ms"]
        cells = [
            f"{number(predicted[name])} / {number(seen[name])} = {predicted[name] / seen[name]:.2f}"
            for name in predicted
        ]
        lasts = each["rounds_last_ms"]
        spread = f"{number(min(lasts))} to {number(max(lasts))}"
        cpu = f"{number(each['cpu_us'])} + {number(each['receiver_cpu_us'])} µs"
        name = f"{each['relays']} x {each['streams'] // each['relays']:,}"
        rows.append([name, *cells, spread, cpu])
    columns = ["relays x streams", "first", "p50", "p99", "last", "last, measured", "CPU of a delivery, both ends"]
    return Table(columns, rows)


def checked_herds(check: Document) -> Table:
    """Relays that are killed: predicted, measured, and the ratio."""
    names = {
        "half": "half back",
        "most": "99 %",
        "all": "all",
        "change_median_ms": "a change meanwhile, median",
        "change_worst_ms": "the worst",
    }
    rows = []
    for each in check["herds"]:
        predicted, seen = each["predicted"], each["measured"]
        cells = []
        for name in names:
            unit = "ms" if name.endswith("_ms") else "s"
            ratio = f"{predicted[name] / seen[name]:.2f}"
            cells.append(f"{number(predicted[name])} / {number(seen[name])} {unit} = {ratio}")
        rows.append([f"{each['retry']:g} s", *cells])
    return Table(["`retry`", *names.values()], rows)

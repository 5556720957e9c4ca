"""What a relay process counts, for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from flagrelay import __version__
from flagrelay.disk.state_dir import StateDir
from flagrelay.relay.pipeline import Pipeline
from flagrelay.relay.reconcile import KillState
from flagrelay.relay.relay import Relay
from flagrelay.relay.states import SourceState
from flagrelay.relay.stats import Delivery

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Upper bounds of the propagation histogram, in seconds."""

Metric = CounterMetricFamily | GaugeMetricFamily

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""A family of series as processes exchange it: name, description, type, and each sample's name, labels and value."""


class Metrics:
    """The metrics of one relay process.

    Counts live in the relay and are read when somebody asks; only propagation times are noted as they happen.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._propagation = Histogram(
            "flagrelay_propagation_seconds",
            "From a change's time in Redis until its bytes went to the first and to the last stream, clocks corrected",
            ("environment", "stream"),
            buckets=BUCKETS,
            registry=self._registry,
        )

    def watch(self, relay: Relay, state_dir: StateDir | None) -> None:
        """Export the counts of a relay."""
        self._registry.register(_RelayCollector(relay, state_dir))

    def delivered(self, pipeline: Pipeline, delivery: Delivery) -> None:
        """Note how long a change took; without streams there is nothing to note."""
        if delivery.streams and delivery.first:
            at = delivery.at / 1e6 - pipeline.source.clock_offset
            for stream, when in (("first", delivery.first), ("last", delivery.last)):
                self._propagation.labels(pipeline.environment, stream).observe(max(0.0, when - at))

    def exposition(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)

    def families(self) -> list[Family]:
        """The same, for another process of the node to write down."""
        return [
            (
                family.name,
                family.documentation,
                family.type,
                [(sample.name, sample.labels, sample.value) for sample in family.samples],
            )
            for family in self._registry.collect()
        ]


class _RelayCollector(Collector):
    def __init__(self, relay: Relay, state_dir: StateDir | None) -> None:
        self._relay = relay
        self._state_dir = state_dir

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("flagrelay_build_info", "The version that runs", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        families = _families()
        for name, pipeline in self._relay.pipelines.items():
            _collect(families, name, pipeline)
        yield from families.values()
        refused = CounterMetricFamily(
            "flagrelay_streams_refused", "Streams refused for want of room, by the limit that said so", labels=["limit"]
        )
        for limit, count in self._relay.refused.items():
            refused.add_metric([limit], count)
        yield refused
        if self._state_dir:
            failing = GaugeMetricFamily("flagrelay_state_files_failing", "Files on disk that could not be written")
            failing.add_metric([], len(self._state_dir.failing))
            yield failing
            written = GaugeMetricFamily(
                "flagrelay_state_written_timestamp_seconds", "When each file on disk was last written", labels=["file"]
            )
            for name, at in self._state_dir.written_at.items():
                written.add_metric([name], at)
            yield written


def _families() -> dict[str, Metric]:
    def counter(name: str, about: str, *labels: str) -> tuple[str, Metric]:
        return name, CounterMetricFamily(f"flagrelay_{name}", about, labels=["environment", *labels])

    def gauge(name: str, about: str, *labels: str) -> tuple[str, Metric]:
        return name, GaugeMetricFamily(f"flagrelay_{name}", about, labels=["environment", *labels])

    return dict(
        (
            gauge("streams_open", "Streams open now"),
            gauge("streams_open_by_kind", "Streams open now, by what they are fed with", "kind"),
            gauge("streams_lagging", "Streams whose client does not read fast enough now"),
            counter("streams_opened", "Streams opened"),
            counter("streams_resumed", "Streams opened, by how they began: full, delta, current", "resume"),
            counter("streams_closed", "Streams closed, by reason", "reason"),
            counter("sent_bytes", "Bytes of events given to transports"),
            counter("evaluations", "OFREP evaluations answered: single, bulk, bulk not modified", "kind"),
            counter("changes_applied", "Changes applied"),
            gauge("revision", "The revision that is served"),
            gauge("flags", "Flags in the snapshot"),
            gauge("source_state", "1 for the state that the source is in, 0 for the others", "state"),
            gauge("source_age_seconds", "Since the snapshot was last known to be Redis's state"),
            counter("source_gaps", "Times that changes were missing and read from the changelog"),
            counter("source_reloads", "Whole reads of the environment, by reason", "reason"),
            counter("source_bad_messages", "Messages on the channel that could not be read"),
            counter("source_losses", "Times that Redis, or the environment in it, was lost"),
            counter("source_histories_lost", "Times that Redis had lost changes which it had acknowledged"),
            counter("reports", "Reports to Redis of what streams have, by what came of it: ok, failed", "result"),
            gauge("local_kills", "Kills that this relay holds by itself: local, written, conflict, refused", "state"),
            gauge("clock_offset_seconds", "Redis's clock minus this machine's"),
        )
    )


def _collect(families: dict[str, Metric], name: str, pipeline: Pipeline) -> None:
    stats, source, snapshot = pipeline.stats, pipeline.source, pipeline.snapshot
    single = {
        "streams_open": pipeline.streams,
        "streams_lagging": sum(len(hub.lagging) for hub in pipeline.hubs.values()),
        "streams_opened": stats.opened,
        "sent_bytes": stats.sent_bytes,
        "changes_applied": stats.changes,
        "source_gaps": stats.gaps,
        "source_bad_messages": stats.bad_messages,
        "source_histories_lost": stats.histories_lost,
        "source_losses": stats.connection_losses,
        "clock_offset_seconds": source.clock_offset,
    }
    if snapshot:
        single |= {
            "revision": snapshot.position.revision,
            "flags": len(snapshot.flags),
            "source_age_seconds": pipeline.age,
        }
    labelled = {
        "streams_open_by_kind": {kind: len(hub.subscribers) for kind, hub in pipeline.hubs.items()},
        "streams_resumed": stats.resumed,
        "streams_closed": stats.closed,
        "evaluations": stats.evaluations,
        "source_reloads": stats.reloads,
        "reports": stats.reports,
        "local_kills": {state.value: pipeline.local_kills.states[state.value] for state in KillState},
        "source_state": {state.value: int(state is source.state) for state in SourceState},
    }
    for metric, value in single.items():
        families[metric].add_metric([name], value)
    for metric, values in labelled.items():
        for label, value in values.items():
            families[metric].add_metric([name, label], value)

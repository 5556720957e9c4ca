"""GET /metrics: what this process counts; where it is a worker of a node, what all of them and the node itself do."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from flagrelay.server.context import Context, context_of


async def metrics(request: Request) -> Response:
    """Everything, in Prometheus's text format; the series of workers have a `worker` label."""
    context = context_of(request)
    if context.node:
        exposition = generate_latest(_NodeCollector(await context.node.gather("metrics")))
    else:
        exposition = context.metrics.exposition()
    return Response(exposition, headers={"content-type": CONTENT_TYPE_LATEST})


def families(context: Context) -> dict[str, Any]:
    """The metrics of this process, for another one of the node."""
    return {"families": context.metrics.families()}


class _NodeCollector(Collector):
    def __init__(self, gathered: dict[str, Any]) -> None:
        self._workers: list[dict[str, Any]] = gathered["workers"]
        self._supervisor: dict[str, Any] | None = gathered["supervisor"]

    def collect(self) -> Iterator[Metric]:
        yield from self._of_workers()
        up = GaugeMetricFamily(
            "flagrelay_worker_up", "Whether the worker has answered for this scrape", labels=["worker"]
        )
        restarts = CounterMetricFamily(
            "flagrelay_worker_restarts",
            "Workers that were replaced, by why: killed, exited, hung, reload",
            labels=["worker", "reason"],
        )
        for worker in self._workers:
            up.add_metric([str(worker["worker"])], int("report" in worker))
            for reason, count in worker.get("restarts_by_reason", {}).items():
                restarts.add_metric([str(worker["worker"]), reason], count)
        yield up
        if self._supervisor:
            yield GaugeMetricFamily(
                "flagrelay_workers_wanted", "Workers that there should be", self._supervisor["wanted"]
            )
            yield GaugeMetricFamily("flagrelay_workers_alive", "Workers whose process runs", self._supervisor["alive"])
            yield restarts

    def _of_workers(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for worker in self._workers:
            label = {"worker": str(worker["worker"])}
            for name, about, kind, samples in worker.get("report", {}).get("families", []):
                family = merged.setdefault(name, Metric(name, about, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**label, **labels}, value)
        yield from merged.values()

"""What is counted and measured, as Prometheus reads it. No text, address or key is ever a label."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.responses import Response

from edgedc.answers import Stage
from edgedc.server.reply import Outcome
from edgedc.server.work import Workers

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)


class Metrics:
    """Each chat request that is let in counts once, by its outcome; each call of a model when it is done."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, with the time at which it was made
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        requests, tokens = "Chat requests, by how they ended.", "Tokens that models read and wrote."
        self._requests = Counter("edgedc_requests", requests, ["outcome"], registry=registry)
        self._tokens = Counter("edgedc_tokens", tokens, ["where", "kind"], registry=registry)
        self._bytes = Counter("edgedc_sent_bytes", "Bytes that left this device for the solver.", registry=registry)

        def seconds(name: str, what: str, *labels: str) -> Histogram:
            return Histogram(name, what, labels, buckets=_SECONDS, registry=registry)

        self._request_s = seconds("edgedc_request_seconds", "From a chat request to its end.")
        self.first_piece = seconds("edgedc_first_piece_seconds", "From a chat request to the first piece of its reply.")
        self._call_s = seconds("edgedc_call_seconds", "A call of a model, here or remote.", "where")

    def watch(self, workers: Workers, booked: Callable[[], float | None]) -> None:
        """`booked`: US dollars that the calls have taken so far, None where no price is known."""

        def gauge(name: str, what: str, value: Callable[[], float]) -> None:
            Gauge(name, what, registry=self._registry).set_function(value)

        gauge("edgedc_requests_running", "Chat requests at work.", lambda: workers.running)
        gauge("edgedc_requests_waiting", "Chat requests that wait.", lambda: workers.waiting)
        if booked() is not None:
            what = "US dollars booked since the start, the worst case of calls that were cut off included."
            gauge("edgedc_booked_dollars", what, lambda: booked() or 0.0)

    def end(self, outcome: Outcome, seconds: float) -> None:
        self._requests.labels(outcome).inc()
        self._request_s.observe(seconds)

    def call(self, stage: Stage) -> None:
        """One that failed too."""
        made = stage.generation
        self._call_s.labels(stage.where).observe(made.total_s)
        self._tokens.labels(stage.where, "input").inc(made.usage.input_tokens)
        self._tokens.labels(stage.where, "output").inc(made.usage.output_tokens)
        self._bytes.inc(made.bytes_sent)

    def response(self) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

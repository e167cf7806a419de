# A program with a lifecycle and the libraries of observation: `app_telemetry.py WORDS`, among them
# spans, metrics, flush (a hook that shuts the provider down), reverse, hang. It stops itself, and
# says each span as a line of JSON.
import json
import sys
import time

words = sys.argv[1:]
if "spans" in words:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class Lines(SpanExporter):
        def export(self, spans) -> SpanExportResult:  # noqa: ANN001 (the library's)
            for span in spans:
                line = {
                    "span": span.name,
                    "id": span.context.span_id,
                    "parent": span.parent.span_id if span.parent else None,
                    "status": span.status.status_code.name,
                    "why": span.status.description,
                    "began": span.start_time / 1e9,
                    "took_s": (span.end_time - span.start_time) / 1e9,
                    "attributes": dict(span.attributes),
                }
                print(json.dumps(line), flush=True)
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)  # what we do not flush is lost
    provider.add_span_processor(BatchSpanProcessor(Lines()))
    trace.set_tracer_provider(provider)
if "metrics" in words:
    import prometheus_client

from lastcall import Lifecycle  # noqa: E402 (as an application has it)

lifecycle = Lifecycle("", exit_with="zero", grace_s=8, limits={"close": 0.5})
if "reverse" in words:
    lifecycle.in_reverse("flush")


@lifecycle.on("work")
def fails() -> None:
    raise ValueError("no such table")


if "hang" in words:

    @lifecycle.on("close")
    def hangs() -> None:
        time.sleep(600)


if "flush" in words:

    @lifecycle.on("flush")
    def flush() -> None:
        provider.shutdown()


if "metrics" in words:

    @lifecycle.on("flush")
    def scrape() -> None:
        print(prometheus_client.generate_latest().decode(), flush=True)


with lifecycle:
    if "metrics" in words:
        with lifecycle.work("order 17"):
            print(prometheus_client.generate_latest().decode(), flush=True)
libraries = ("opentelemetry", "prometheus_client", "lastcall.app.telemetry")
print("loaded", [name for name in libraries if name in sys.modules], flush=True)

"""The front's metrics, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Counters:
    """The metrics of the front and of the supervisor, which are served together with TorchServe's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused = Counter(
            "perceptual_refused", "Requests and connections that the front refused", ["Reason"], registry=self.registry
        )
        self.deaths = Counter(
            "perceptual_worker_deaths", "Workers that died during a request", ["Model"], registry=self.registry
        )
        self.restarts = Counter("perceptual_restarts", "Starts of TorchServe after its first", registry=self.registry)
        self.held = Gauge("perceptual_held_models", "Models that the supervisor holds back", registry=self.registry)
        self.waiting = Gauge(
            "perceptual_waiting", "Requests that wait in the front for a worker", ["Model"], registry=self.registry
        )

    def refuse(self, reason: str) -> None:
        """Counts a refusal."""
        self.refused.labels(reason).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

"""What `lyceum status` tells of a service's traffic is what its replicas counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from flows.platform.traffic import Traffic, traffic

PAGE = """\
# HELP ray_lyceum_requests_total Requests answered
# TYPE ray_lyceum_requests_total counter
ray_lyceum_requests_total{service="algebra",version="1",route="a",status="200"} 90
ray_lyceum_requests_total{service="algebra",version="2",route="a",status="200"} 5
ray_lyceum_requests_total{service="algebra",version="2",route="a",status="422"} 3
ray_lyceum_requests_total{service="algebra",version="2",route="b",status="503"} 2
ray_lyceum_requests_total{service="geometry",version="1",route="a",status="200"} 1
# HELP ray_lyceum_request_seconds Time to answer
# TYPE ray_lyceum_request_seconds histogram
ray_lyceum_request_seconds_bucket{service="algebra",version="1",route="predict",le="0.01"} 60
ray_lyceum_request_seconds_bucket{service="algebra",version="1",route="predict",le="0.02"} 100
ray_lyceum_request_seconds_bucket{service="algebra",version="1",route="predict",le="+Inf"} 100
ray_lyceum_request_seconds_sum{service="algebra",version="1",route="predict"} 1.5
ray_lyceum_request_seconds_count{service="algebra",version="1",route="predict"} 100
# HELP ray_lyceum_predictions_total Answers logged, or dropped
# TYPE ray_lyceum_predictions_total counter
ray_lyceum_predictions_total{service="algebra",version="1",fate="written"} 80
ray_lyceum_predictions_total{service="algebra",version="1",fate="dropped"} 7
# HELP ray_lyceum_model_age_seconds Since this replica loaded its version
# TYPE ray_lyceum_model_age_seconds gauge
ray_lyceum_model_age_seconds{service="algebra",version="1"} 300.2
ray_lyceum_model_age_seconds{service="algebra",version="2"} 12.4
# HELP ray_lyceum_queue_positions Positions that wait
# TYPE ray_lyceum_queue_positions gauge
ray_lyceum_queue_positions{service="algebra",version="1"} 40
# HELP ray_node_cpu Something else
# TYPE ray_node_cpu gauge
ray_node_cpu{service="none"} 1
"""


@pytest.fixture
def page() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


def test_the_replicas_of_a_service_are_told_together(page: str) -> None:
    found = traffic(page)
    assert set(found) == {"algebra", "geometry"}
    assert found["algebra"].as_dict() == {
        "requests": 100,
        "failed": 2,
        "refused": 3,
        "p50_ms": 8.3,
        "p99_ms": 19.8,
        "queue": 40,
        "dropped": 7,
        "model_age_s": 12,
    }
    assert found["geometry"].as_dict()["p50_ms"] is None


def test_where_no_page_answers_nothing_is_told() -> None:
    assert traffic("http://127.0.0.1:9/metrics") == {}


def test_beyond_the_last_bucket_the_least_is_told() -> None:
    told = Traffic(buckets={0.1: 1.0, float("inf"): 10.0})
    assert told.quantile_ms(0.99) == 100

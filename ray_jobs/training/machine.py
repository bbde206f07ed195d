"""What the node of a worker is busy with while it trains: CPUs, memory, network, GPU.

The figures bear the names that MLflow gives to system metrics, so that its
pages show them where an analyst looks for them.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from ray_jobs.training.events import SYSTEM

logger = logging.getLogger(__name__)

SAMPLE_S = 1.0
MEGABYTE = 1e6  # as MLflow counts


class Machine:
    """One node between two looks: counters by what was added, levels by their mean."""

    def __init__(self, node: str, device: torch.device) -> None:
        self._node = node
        self._gpu = _gpu(device)
        self._levels: dict[str, list[float]] = defaultdict(list)
        self._counted = _counters()
        self._lock = threading.Lock()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample its levels each second until the block ends."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(SAMPLE_S):
                with self._lock:
                    self._sample()

        thread = threading.Thread(target=watch, name="machine", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def figures(self) -> dict[str, float]:
        """What happened since the last call, keyed as MLflow keys the metrics of a node."""
        with self._lock:
            self._sample()
            levels, self._levels = self._levels, defaultdict(list)
            before, self._counted = self._counted, _counters()
        grown = {name: self._counted[name] - before[name] for name in before}
        # Two looks within one tick of the system's clock have nothing between them, and what
        # Linux says of waiting for disks may run backwards.
        share = grown["busy"] / grown["all"] if grown["all"] > 0 else 0.0
        busy = 100 * min(max(share, 0.0), 1.0)
        told = {name: sum(values) / len(values) for name, values in levels.items()}
        told |= {
            "cpu_utilization_percentage": busy,
            "network_receive_megabytes": grown["received"] / MEGABYTE,
            "network_transmit_megabytes": grown["sent"] / MEGABYTE,
        }
        return {f"{SYSTEM}{self._node}/{name}": value for name, value in told.items()}

    def _sample(self) -> None:
        memory = psutil.virtual_memory()
        self._levels["system_memory_usage_megabytes"].append(memory.used / MEGABYTE)
        self._levels["system_memory_usage_percentage"].append(memory.percent)
        if self._gpu is None:
            return
        free, total = torch.cuda.mem_get_info(self._gpu)
        used = total - free
        self._levels["gpu_utilization_percentage"].append(torch.cuda.utilization(self._gpu))
        self._levels["gpu_memory_usage_megabytes"].append(used / MEGABYTE)
        self._levels["gpu_memory_usage_percentage"].append(100 * used / total)


def _counters() -> Mapping[str, float]:
    """Seconds of all CPUs since the system started, and bytes over the network."""
    times, network = psutil.cpu_times(), psutil.net_io_counters()
    # A guest's time is in its host's already; other systems than Linux know no iowait.
    known = {k: v for k, v in times._asdict().items() if not k.startswith("guest")}
    idle = known["idle"] + known.get("iowait", 0.0)
    everything = sum(known.values())
    return {
        "all": everything,
        "busy": everything - idle,
        "received": network.bytes_recv,
        "sent": network.bytes_sent,
    }


def _gpu(device: torch.device) -> Any:
    """The GPU to look at, where there is one and the driver's library to ask it by."""
    if device.type != "cuda":
        return None
    try:
        torch.cuda.utilization(device)
    except ModuleNotFoundError as error:
        logger.warning("no system metrics of the GPU: %s; pip install nvidia-ml-py", error)
        return None
    return device

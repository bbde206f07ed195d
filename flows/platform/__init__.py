"""The platform on one machine: Prefect, MLflow and Ray with Serve, started and stopped as one.

Importing this loads none of the three.
"""

from flows.platform.doctor import Check, doctor
from flows.platform.embedded import Embedded, embedded, reap
from flows.platform.environment import environment, mlflow_database
from flows.platform.ephemeral import begin_prefect
from flows.platform.lifecycle import down, up
from flows.platform.record import Platform, running
from flows.platform.status import status

__all__ = [
    "Check",
    "Embedded",
    "Platform",
    "begin_prefect",
    "doctor",
    "down",
    "embedded",
    "environment",
    "mlflow_database",
    "reap",
    "running",
    "status",
    "up",
]

"""The things of Lyceum: families, training, serving, data, and the store.

The bottom layer: a worker or a replica needs only this package, so nothing in
it imports Prefect or MLflow, and importing it does nothing else.
"""

__version__ = "0.1.0"

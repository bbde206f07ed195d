"""The verbs of Lyceum: the stages of the pipeline, and what MLflow is told of them."""

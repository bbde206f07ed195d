"""Whether explanations are faithful: `python -m tests.bench.explanations`.

Held-out learners of the simulated school are asked about; the answers that
`v1/predict?explain=true` names are deleted, or as many random answers of the same
history, and it is compared how far the prediction moves. Small models, trained here.
"""

from __future__ import annotations

import torch

from ray_jobs.families.knowledge.networks import SPECS
from ray_jobs.families.knowledge.reasons import TOLD
from ray_jobs.intervals import Interval
from tests.taught_parts import moved, probes, taught

PROBES = 300
DELETED = (1, 3, TOLD)


def main() -> None:
    """Print the mean absolute moves of each model, and how far they are apart."""
    torch.set_num_threads(2)
    asked = probes(PROBES, shortest=2 * TOLD)
    for name in SPECS:
        for deleted, moves in zip(DELETED, moved(taught(name), asked, *DELETED), strict=True):
            told = [f"{kind} {shown(figure)}" for kind, figure in moves.means().items()]
            print(name, f"{deleted} deleted", *told, sep="\t", flush=True)


def shown(figure: Interval) -> str:
    return f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"


if __name__ == "__main__":
    main()

"""Measure the ML layer against its bars and its peers: `ci/bench.sh ml`, a table.

python asv_bench/ml.py [--quick] [--json] [--page FILE] [ROW ...]

With names of rows (exact, or a part of a name) only those rows are measured. What needs PyTorch or
a model is left out, and says so, where that is not installed.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_embeddings
import ml_features
import ml_fingerprints
import ml_prefixes
import ml_results
import ml_semantic
import ml_weights
from command import command
from report import Line
from timing import Effort

ROWS: dict[str, Callable[[Effort], list[Line]]] = {
    "fingerprint": ml_fingerprints.rows,
    "embeddings": ml_embeddings.rows,
    "results": ml_results.rows,
    "features": ml_features.rows,
    "semantic": ml_semantic.rows,
    "prefixes": ml_prefixes.rows,
    "weights": ml_weights.rows,
}

if __name__ == "__main__":
    command(__doc__, ROWS)

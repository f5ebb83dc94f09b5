# Types of _simulate.pyx; stubtest compares the two.

from typing import Any

import numpy as np
import numpy.typing as npt

def run(
    keys: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64] | None,
    costs: npt.NDArray[np.float64] | None,
    times: npt.NDArray[np.uint32] | None,
    maxsize: int | None,
    max_bytes: int | None,
    lifetime: int,
    seed: int,
    sketch_bytes: int,
    samples: int,
) -> dict[str, Any]: ...

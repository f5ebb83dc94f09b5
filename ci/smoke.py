"""Use an installed cachecore where there is nothing but NumPy; ci/wheels.sh runs this."""

import asyncio
import subprocess
import sys
import tempfile
from importlib.metadata import distributions

import numpy as np

import cachecore
from cachecore import MISSING, Cache, VectorCache, memoize

assert "site-packages" in cachecore.__file__, cachecore.__file__
found = {distribution.metadata["Name"] for distribution in distributions()}
assert found <= {"cachecore-ml", "numpy", "pip", "setuptools"}, found

cache: Cache[str, object] = Cache(100, ttl=60)
for i in range(1000):
    cache[f"key {i}"] = i
    assert cache[f"key {i}"] == i
assert len(cache) == 100
assert cache.get("absent", MISSING) is MISSING

row = np.arange(256, dtype=np.float32)
cache["row"] = row
row[0] = 9
out = np.empty((2, 256), dtype=np.float32)
assert cache.gather(["row", "absent"], out).tolist() == [True, False]
assert out[0, 0] == 0
assert cache.stats().hits == 1001

table = VectorCache(256, capacity=1000)
table.put([3, -1], np.stack([row, row + 1]))
rows, flags = table.gather([-1, 7, 3])
assert flags.tolist() == [True, False, True]
assert rows[0, 1] == row[1] + 1
sizes = []
with tempfile.TemporaryDirectory() as folder:
    for version in ("a", "a", "b"):
        with VectorCache(2, capacity=10, path=f"{folder}/rows", version=version) as shared:
            sizes.append(len(shared))
            shared.put([1], np.ones((1, 2), np.float32))
assert sizes == [0, 1, 0], sizes


@memoize
def double(x: int) -> int:
    return 2 * x


@memoize(maxsize=8)
async def triple(x: int) -> int:
    return 3 * x


assert [double(4), double(4)] == [8, 8]
assert double.cache_info().hits == 1
assert asyncio.run(triple(4)) == 12

command = subprocess.run(
    [sys.executable, "-m", "cachecore", "--help"], capture_output=True, text=True, check=False
)
assert command.returncode == 2, command
assert 'pip install "cachecore-ml[cli]"' in command.stderr, command
print(f"cachecore {cachecore.__version__} works with NumPy {np.__version__} alone")

"""asv benchmarks of cachecore by topic; what they share with the tables lies one folder up."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

"""What needs PyTorch is run where that is installed: by ci/examples.sh."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["torch"]

"""`python -m cachecore`: the command line, where its script is not on the path."""

import sys

from cachecore.cli.main import main

sys.exit(main())

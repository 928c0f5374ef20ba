"""`python -m avhubert.cli`: the command `avhubert` where its script is not on the PATH, as under torchrun."""

import sys

from avhubert.cli.app import main

sys.exit(main())

"""`python -m avhubert.cli`: the command where the script is not on the path, as under torchrun."""

import sys

from avhubert.cli.app import main

sys.exit(main())

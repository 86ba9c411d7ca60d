"""Training of titokcodec's models, run from a checkout: ``python -m training.single --help``."""

import sys

if sys.argv[0] == "-m":  # python -m training.MODULE, while MODULE is being looked for: the process is its own
    from titokcodec.cli.process import prepare

    prepare()

"""Training of titokcodec's models, run from a checkout: ``python -m training.single --help``."""

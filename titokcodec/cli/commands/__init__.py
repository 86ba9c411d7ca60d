"""The commands, one a module: its options, its help, and what it does."""

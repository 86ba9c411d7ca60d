"""Fuzzing what strangers may hand to the library: targets, a driver with budgets, and a small corpus that tests replay.

python -m tests.fuzz --minutes 5             # every target, for so long each
python -m tests.fuzz --minutes 5 entropy     # one
"""

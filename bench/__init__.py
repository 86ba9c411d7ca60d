"""Benchmarks and the pictures of the README; they use only what a user could import."""

"""Circuits: trace a prompt into an attribution graph, read it, and test it by intervention with controls."""

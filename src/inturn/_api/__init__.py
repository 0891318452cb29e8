"""Signatures, docstrings and what an `executor` argument stands for. May import every wing;
nothing imports it. No logic.
"""

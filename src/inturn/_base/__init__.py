"""Argument checks, what differs without the GIL, and wake-ups. Imports nothing of the library."""

"""The synchronous driver: what makes a thread wait for a run. May import `_core` and below."""

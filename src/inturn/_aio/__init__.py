"""The asyncio driver and its pool of tasks. May import `_core` and below, and the pools; imported
only when an async function is used.
"""

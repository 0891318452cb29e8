"""The asyncio driver and its pool of tasks, loaded late. May import `_core` and below."""

"""Order and bound, sans-IO: no thread, no clock, no wait. May import `_model` and `_base` only."""

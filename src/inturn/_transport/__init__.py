"""How objects are sent to another process: pickling, shared memory, messages. May import `_model`
and `_base` only; knows no run.
"""

"""Worker processes: the pool, the parent's side, and what runs in a worker. May import `_pools` and
below; knows no driver.
"""

"""Worker processes: the pool, the parent's end, and what runs in a worker. May import `_pools` and
below; knows no driver.
"""

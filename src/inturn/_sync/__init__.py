"""The synchronous driver: the only code that makes the consumer's thread wait. May import `_core`
and below; knows no pool.
"""

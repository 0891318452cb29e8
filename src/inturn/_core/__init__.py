"""One run: what its workers share, the consumer's side, pulling, and the run's own threads. May
import `_engine` and below; knows no pool.
"""

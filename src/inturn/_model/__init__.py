"""What users hold: outcomes, policies, statistics, reports, settings. May import `_base` only."""

"""Where calls run here, or through an executor of the user's. May import `_core` and below."""

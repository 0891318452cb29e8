"""Where calls run inside this process or through an executor of the user's. May import `_core` and
below; knows no driver.
"""

"""What tests the library, and code that uses it. May import every wing; nothing imports it but the
command.
"""

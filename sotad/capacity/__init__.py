"""What a server's start-up log says about memory: where it went, how many tokens fit, what to change.

Every number is a reading with its line, or derived with its formula, or unknown. Nothing here guesses.
"""

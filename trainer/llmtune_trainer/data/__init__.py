"""From raw files to rows that a trainer takes as they are: read, checked, chosen, tokenised and kept.

Nothing here imports torch before every row has been checked, and nothing holds all rows in memory.
"""

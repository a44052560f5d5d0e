"""Random kills and damaged input, for as long as one likes: `python -m tests.hostile --minutes 10`."""

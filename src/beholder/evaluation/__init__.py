"""Judging the result: held-out rewards and diversity."""

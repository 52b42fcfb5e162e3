"""What draws: a generator that can be sampled, scored again and trained."""

from beholder.policies.policy import Policy, load_policy

__all__ = ["Policy", "load_policy"]

"""What draws: a generator that can be sampled, scored again and trained."""

from beholder.policies.loading import load_policy
from beholder.policies.policy import Policy

__all__ = ["Policy", "load_policy"]

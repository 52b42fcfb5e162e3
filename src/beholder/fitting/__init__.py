"""A reward model of one's own from preferences: ``beholder fit SET``."""

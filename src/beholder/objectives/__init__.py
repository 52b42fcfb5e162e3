"""What to minimise: pure functions of evidence and advantages, and regularisers."""

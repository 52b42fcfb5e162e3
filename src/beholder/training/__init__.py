"""The one loop: it draws, scores, credits, updates, measures and saves; every row of the method table runs here."""

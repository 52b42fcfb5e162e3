"""Bundled generators with an exact gold reward, for laptops, tests and fair comparison of methods."""

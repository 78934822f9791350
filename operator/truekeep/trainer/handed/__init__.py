"""Models that a team's own image trained."""

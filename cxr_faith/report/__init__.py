"""What records say, for people: summary, leaderboard, figures, the report page. Nothing here runs a model."""

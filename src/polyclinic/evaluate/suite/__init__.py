"""Which medical exams there are, and how each is read."""

"""Report: from results to what a person looks at."""

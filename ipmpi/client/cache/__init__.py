"""Results of calls that were made before: what makes two calls equal, and the file in which results are kept."""

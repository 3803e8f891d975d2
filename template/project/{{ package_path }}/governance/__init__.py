"""What those who sign ask for: machinery of the part, the same in every project."""

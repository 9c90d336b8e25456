"""What points at a person, found and hidden."""

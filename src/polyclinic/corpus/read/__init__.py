"""Files of every kind into records, with their place, their licence and a name of their own."""

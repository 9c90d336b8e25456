"""Raw text, exams and dialogues in; clean, traced, packed shards and a data card out. No torch here."""

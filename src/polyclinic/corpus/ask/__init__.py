"""Steps that ask a language model: rewriting, translating, and the audit of translations."""

"""Dense checkpoint in, Post-MoE checkpoint out, proven equal to its parent."""

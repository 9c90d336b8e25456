"""The mixture itself: what native form holds a dense parent, conversion, proof, and routing."""

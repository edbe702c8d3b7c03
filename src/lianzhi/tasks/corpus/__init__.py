"""Texts without labels, for general distillation: sentences, masked words, and whether one text follows another."""

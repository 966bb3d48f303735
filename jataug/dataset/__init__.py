"""Adversarial data sets as they are stored: their files, one reader, the card, and verification."""

"""Blind human evaluation: pairs of answers, votes, and what they say of the models."""

"""Curation: which problems a policy should train on, by how often it solves them and by what they share."""

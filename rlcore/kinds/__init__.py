"""Conversation kinds: a small file each, which tells the story of a conversation and states its facts."""

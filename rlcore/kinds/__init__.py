"""Conversation kinds: each is a small file with the script of the conversation and its facts."""

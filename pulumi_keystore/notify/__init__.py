"""Mails: their texts, and the outbox from which they are sent."""

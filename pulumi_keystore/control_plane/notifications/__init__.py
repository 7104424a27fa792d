"""Mails and webhooks: written down with what they tell of, and sent until they have arrived."""
